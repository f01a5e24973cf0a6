"""What a fit tells those who ask for progress."""

from hilbound.estimators.progress import progress_bar


def test_a_terminal_shows_a_bar_on_stderr(monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress_bar("fitting", 3, shown=True) as advance:
        for _ in range(3):
            advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert "fitting" in err
    assert "3/3" in err


def test_a_pipe_gets_lines(monkeypatch, capsys):
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    with progress_bar("fitting", 3, shown=True) as advance:
        advance()
    assert capsys.readouterr() == ("", "fitting: 3 steps\n")


def test_nobody_is_told_what_nobody_asked(capsys):
    with progress_bar("fitting", 3, shown=False) as advance:
        advance()
    assert capsys.readouterr() == ("", "")
