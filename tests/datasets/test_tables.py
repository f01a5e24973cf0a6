"""Tables and images from files: what is read, how it is split and scaled, what is refused."""

import gc

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from hilbound.datasets.splits import split_rows
from hilbound.datasets.tables import load_table
from hilbound.errors import DataError, InputError

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(40, 3))


def numbered(n, d=2):
    """Points whose first coordinate is their row number."""
    return np.column_stack([np.arange(n), *RNG.normal(size=(d - 1, n))]).astype(float)


@pytest.fixture
def save(tmp_path):
    """Write an array, a dictionary of arrays, text or bytes to a file, and return its path."""

    def write(content, name=None):
        if isinstance(content, np.ndarray):
            path = tmp_path / (name or "x.npy")
            np.save(path, content)
        elif isinstance(content, dict):
            path = tmp_path / (name or "x.npz")
            np.savez(path, **content)
        else:
            path = tmp_path / (name or "x.csv")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def parts(data):
    return [data.train, data.validation, data.test]


def everything(data):
    return torch.cat(parts(data))


# --- splits ---


@given(
    st.integers(10, 300),
    st.floats(0.01, 0.45),
    st.floats(0.01, 0.45),
    st.integers(0, 2**32 - 1),
    st.none() | st.integers(1, 300),
)
def test_splits_share_no_row_and_have_the_sizes_asked_for(n, validation, test, seed, samples):
    def split(samples):
        return split_rows(
            n,
            generator=torch.Generator().manual_seed(seed),
            validation_fraction=validation,
            test_fraction=test,
            samples=samples,
        )

    full, cut = split(None), split(samples)
    assert sorted(torch.cat(full).tolist()) == list(range(n))
    assert abs(len(full.validation) - validation * n) <= 1
    assert abs(len(full.test) - test * n) <= 1
    assert min(map(len, full)) >= 1
    assert torch.equal(cut.train, full.train[:samples])
    assert torch.equal(cut.validation, full.validation)
    assert torch.equal(cut.test, full.test)


def test_split_is_random_and_seeded():
    one, same, other = (
        split_rows(500, generator=torch.Generator().manual_seed(seed)).train for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, one.sort().values)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"validation_fraction": 0.0}, "validation_fraction=0.0 must lie strictly between 0 and 1"),
        ({"test_fraction": 1.0}, "test_fraction=1.0 must lie"),
        ({"test_fraction": float("nan")}, "test_fraction=nan must lie"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "sum to 1 or more"),
        ({"validation_fraction": 0.49, "test_fraction": 0.49}, "take all 10 rows"),
    ],
)
def test_fractions_refused(fractions, message):
    with pytest.raises(InputError, match=message):
        split_rows(10, generator=torch.Generator(), **fractions)


@pytest.mark.parametrize("n", [1, 9])
def test_too_few_rows(save, n):
    with pytest.raises(DataError, match=rf"{n} rows? of data, at least 10 are needed"):
        load_table(save(numbered(n)))
    assert sum(map(len, parts(load_table(save(numbered(10)))))) == 10


# --- reading ---


def test_all_formats_agree(save):
    frame = pd.DataFrame(POINTS, columns=["a", "b", "c"])
    one = load_table(save(POINTS), seed=5)
    others = [
        load_table(save({"points": POINTS}), seed=5),
        load_table(save(frame.to_csv(index=False)), seed=5),
        load_table(save(frame.to_csv(index=False, header=False), "bare.csv"), seed=5),
        load_table(save(frame.to_csv(index=False, sep=";"), "semicolons.csv"), seed=5),
        load_table(save(frame.to_csv(index=False, sep="\t"), "tabs.CSV"), seed=5),
        load_table(save(b"\xef\xbb\xbf" + frame.to_csv(index=False).encode(), "bom.csv"), seed=5),
    ]
    for other in others:
        torch.testing.assert_close(parts(other), parts(one), rtol=0, atol=1e-6)
    assert others[1].columns == ("a", "b", "c")
    assert others[5].columns == ("a", "b", "c")
    assert others[2].columns == ("column_1", "column_2", "column_3")
    assert one.columns is None
    assert one.train.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint8", "int64", "bool", ">f8"])
def test_number_types(save, dtype):
    x = RNG.integers(0, 2, size=(30, 2)).astype(dtype)
    found = everything(load_table(save(x), scale="none"))
    assert sorted(found.tolist()) == sorted(x.astype(float).tolist())


def test_one_dimension_becomes_a_column(save):
    assert load_table(save(np.arange(20.0))).train.shape == (16, 1)


def test_header_is_told_from_values(save):
    rows = "".join(f"{i},{i * i},{i % 3}\n" for i in range(5, 35))
    cases = {
        "year,2019,2020\n": ("year", "2019", "2020"),
        "0,1,2\n": ("0", "1", "2"),
        "a, b, c\n": ("a", "b", "c"),
        "": ("column_1", "column_2", "column_3"),
    }
    for header, columns in cases.items():
        data = load_table(save(header + rows), scale="none")
        assert data.columns == columns
        assert sorted(everything(data)[:, 0].tolist()) == list(range(5, 35))


def test_csv_without_header_but_with_classes_keeps_its_first_row(save):
    """As the iris table of the UCI repository comes."""
    rows = [f"{i},{i / 2},{'setosa' if i % 2 else 'virginica'}\n" for i in range(20)]
    data = load_table(save("".join(rows)), scale="none", label_column="column_3")
    assert sorted(everything(data)[:, 0].tolist()) == list(range(20))
    assert torch.equal(data.train_labels, data.train[:, 0].long() % 2 == 0)


# --- labels ---


@pytest.mark.parametrize("values", [[0, 1, 2], [-5, 3, 70], ["ant", "bee", "cat"], [1.0, 2.0, 3.0]])
def test_csv_labels_follow_their_rows(save, values):
    x = numbered(60)
    frame = pd.DataFrame(x, columns=["n", "z"]).assign(kind=[values[i % 3] for i in range(60)])
    data = load_table(save(frame.to_csv(index=False)), scale="none", label_column="kind")
    assert data.columns == ("n", "z")
    assert data.classes == 3
    assert data.class_names == tuple(str(v).removesuffix(".0") for v in values)
    labels = [data.train_labels, data.validation_labels, data.test_labels]
    for rows, found in zip(parts(data), labels, strict=True):
        assert found.dtype == torch.int64
        assert torch.equal(found, rows[:, 0].long() % 3)


def test_npz_labels_follow_their_rows(save):
    x = numbered(60)
    y = np.arange(60) % 4
    for arrays, column in (
        ({"x": x, "y": y}, None),
        ({"data": x, "labels": y.astype(np.uint8)}, None),
        ({"features": x, "other": POINTS, "kind": y}, "kind"),
        ({"x": x, "y": y, "labels": y[::-1]}, "y"),
    ):
        data = load_table(save(arrays), scale="none", label_column=column)
        assert torch.equal(data.test_labels, data.test[:, 0].long() % 4)
        assert data.class_names == ("0", "1", "2", "3")
    assert load_table(save({"x": x, "y": y.astype(float)})).train_labels is None
    assert load_table(save({"x": x})).classes is None
    assert load_table(save({"x": x})).class_names is None


def test_a_class_counts_where_no_training_row_has_it(save):
    """A classifier of held-out rows needs a place for it."""
    rows = [f"{i},{i / 2},{'zebra' if i == 7 else 'ant'}\n" for i in range(40)]
    text = "n,z,kind\n" + "".join(rows)
    absent = 0
    for seed in range(30):
        data = load_table(save(text), seed=seed, label_column="kind")
        assert data.classes == 2
        absent += int(data.train_labels.max()) == 0
    assert absent > 0


def test_labels_refused(save):
    x = numbered(20)
    text = pd.DataFrame(x, columns=["n", "z"]).to_csv(index=False)
    with pytest.raises(InputError, match="--label-column 'zz': did you mean 'z'"):
        load_table(save(text), label_column="zz")
    with pytest.raises(DataError, match=r"labels such as -?\d.*a measurement, not a class"):
        load_table(save(text), label_column="z")
    with pytest.raises(DataError, match="no column is left"):
        load_table(save("kind\n" + "1\n2\n" * 9), label_column="kind")
    with pytest.raises(DataError, match="column 'kind': 2 labels are missing"):
        load_table(save("n,kind\n" + "1,a\n2,b\n" * 9 + "3,\n" * 2), label_column="kind")
    with pytest.raises(
        DataError, match=r"labels of shape \(19,\) for 20 points, \(20,\) is needed"
    ):
        load_table(save({"x": x, "y": np.zeros(19, int)}))
    with pytest.raises(DataError, match=r"labels of shape \(20, 1\)"):
        load_table(save({"x": x, "y": np.zeros((20, 1), int)}))
    with pytest.raises(InputError, match=r"--label-column 'k': .*holds x"):
        load_table(save({"x": x}), label_column="k")
    with pytest.raises(DataError, match="labels 'k' of type float64"):
        load_table(save({"x": x, "k": x[:, 0]}), label_column="k")
    with pytest.raises(InputError, match=r"a \.npy file has no named columns"):
        load_table(save(x), label_column="y")


# --- standardisation ---


def test_standardised_by_the_training_rows_alone(save):
    x = POINTS * [1, 10, 0.01] + [0, -300, 5]
    data, raw = (load_table(save(x), seed=2, scale=scale) for scale in ("standardize", "none"))
    assert raw.standardization is None
    scaler = StandardScaler().fit(raw.train.double().numpy())
    for found, own in zip(parts(data), parts(raw), strict=True):
        np.testing.assert_allclose(found, scaler.transform(own.double().numpy()), atol=3e-4)
        np.testing.assert_allclose(data.to_user_units(found), own, rtol=1e-5)
    assert data.train.double().mean(dim=0).abs().max() < 1e-6
    assert (data.validation.mean(dim=0).abs() > 1e-3).any()


def test_samples_learns_from_the_rows_kept(save):
    data = load_table(save(POINTS), samples=12)
    assert len(data.train) == 12
    assert data.train.double().std(dim=0, correction=0).tolist() == pytest.approx(
        [1, 1, 1], abs=1e-6
    )


def test_large_offsets_keep_their_digits(save):
    """In float32 the spacing near 1.7e9 is 128; here the column varies by one."""
    z = RNG.normal(size=(50, 1))
    for path in (save(1.7e9 + z), save(pd.DataFrame(1.7e9 + z).to_csv(index=False))):
        data = load_table(path, seed=0)
        rows = split_rows(50, generator=torch.Generator().manual_seed(0)).train.numpy()
        expected = (z[rows] - z[rows].mean()) / z[rows].std()
        np.testing.assert_allclose(data.train.numpy(), expected, atol=2e-6)
        np.testing.assert_allclose(
            data.to_user_units(data.train), 1.7e9 + z[rows], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1])
def test_constant_columns(save, value):
    x = POINTS.copy()
    x[:, 1] = value
    x[::2, 1] *= 1 + 2e-16  # rounding errors are no data
    with pytest.raises(DataError, match="'column_2' constant over the 32 training rows") as caught:
        load_table(save(x))
    assert "column_1" not in str(caught.value)
    assert "--scale none" in str(caught.value)
    text = pd.DataFrame(x, columns=["a", "b", "c"]).to_csv(index=False)
    with pytest.raises(DataError, match="'b' constant"):
        load_table(save(text))
    assert load_table(save(x), scale="none").dim == 3


def test_column_that_varies_outside_the_training_rows_only(save):
    held = split_rows(40, generator=torch.Generator().manual_seed(0)).test
    x = POINTS.copy()
    x[:, 0] = 1
    x[held.numpy(), 0] = 2
    with pytest.raises(DataError, match="'column_1' constant"):
        load_table(save(x))


def test_columns_too_small_to_standardise(save):
    with pytest.raises(DataError, match="cannot be standardised"):
        load_table(save(POINTS * 1e-200))


def test_unknown_scale(save):
    with pytest.raises(InputError, match="scale='minmax', allowed are 'standardize' and 'none'"):
        load_table(save(POINTS), scale="minmax")


# --- images ---


def test_uint8_images(save):
    for shape, image_shape in (((30, 4, 5), (1, 4, 5)), ((30, 3, 4, 5), (3, 4, 5))):
        x = RNG.integers(0, 256, size=shape).astype(np.uint8)
        x[:, ..., 0] = 9  # constant pixels are usual in images
        data = load_table(save({"images": x, "y": np.arange(30)}))
        assert data.image_shape == image_shape
        assert data.standardization is None
        assert data.train.dtype == torch.float32
        expected = x.reshape(30, -1)[data.train_labels.numpy()] / 255
        np.testing.assert_allclose(data.train.numpy(), expected, rtol=1e-6)


def test_float_images(save):
    x = RNG.random((20, 1, 3, 3))
    data = load_table(save(x))
    assert data.image_shape == (1, 3, 3)
    np.testing.assert_array_equal(
        np.sort(everything(data).numpy().ravel()), np.sort(x.astype(np.float32).ravel())
    )
    x[0, 0, 0, :2] = -0.5, 2
    with pytest.raises(DataError, match=r"values from -0\.5 to 2, where .* lie in \[0, 1\]"):
        load_table(save(x))
    x[3, 0, 1, 1] = np.nan
    with pytest.raises(DataError, match=r"1 NaN or infinite values \(row 4 of 'column_5'\)"):
        load_table(save(x))
    with pytest.raises(DataError, match="images of type int64, allowed are uint8"):
        load_table(save(np.zeros((20, 3, 3), dtype=np.int64)))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((20, 4, 5, 3), r"channels come last here: save x\.transpose\(0, 3, 1, 2\)"),
        ((20, 2, 4, 5), r"shape \(20, 2, 4, 5\), allowed are"),
        ((20, 1, 1, 2, 2), "allowed are"),
        ((), "allowed are"),
        ((0, 3), "an empty array"),
        ((20, 0), "an empty array"),
    ],
)
def test_shapes_refused(save, shape, message):
    with pytest.raises(DataError, match=message):
        load_table(save(np.zeros(shape)))


# --- refused ---


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_values(save, bad):
    x = POINTS.copy()
    x[[2, 7], [1, 0]] = bad
    with pytest.raises(DataError, match="2 NaN or infinite values") as caught:
        load_table(save(x))
    assert "(row 3 of 'column_2', row 8 of 'column_1')" in str(caught.value)
    text = pd.DataFrame(x, columns=["a", "b", "c"]).to_csv(index=False)
    with pytest.raises(DataError, match=r"\(row 3 of 'b', row 8 of 'a'\)"):
        load_table(save(text), scale="none")
    x[10:] = bad
    with pytest.raises(DataError, match=r"92 NaN .*, \.\.\.\)"):
        load_table(save(x))


def test_values_beyond_float32(save):
    x = POINTS.copy()
    x[4, 2] = -1e39
    with pytest.raises(DataError, match=r"1 values too large for float32 \(row 5 of 'column_3'\)"):
        load_table(save(x), scale="none")


@pytest.mark.parametrize(
    "array",
    [POINTS + 0j, POINTS.astype(str), np.zeros(20, "datetime64[s]"), np.zeros(20, [("a", "f8")])],
    ids=["complex", "text", "time", "record"],
)
def test_other_types_refused(save, array):
    with pytest.raises(DataError, match="where real numbers"):
        load_table(save(array))


class Trap:
    """Would raise if it were ever unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


def test_pickled_objects_are_never_loaded(save):
    trap = np.array([Trap()] * 20, dtype=object)
    for path in (save(trap), save({"x": trap})):
        with pytest.raises(DataError, match=r"holds Python objects, .* unpickling runs code"):
            load_table(path)


def test_damaged_npy_and_npz(save):
    npy, npz = save(POINTS), save({"x": np.tile(POINTS, (50, 1))})
    good, archive = npy.read_bytes(), npz.read_bytes()
    flipped = bytearray(archive)
    flipped[len(archive) // 2] ^= 0xFF  # the checksum finds it
    cases = {
        "half.npy": good[:200],
        "header.npy": good[:20],
        "text.npy": b"these are no numbers",
        "half.npz": archive[: len(archive) // 2],
        "flipped.npz": bytes(flipped),
        "text.npz": b"these are no numbers",
    }
    for name, content in cases.items():
        with pytest.raises(DataError, match="damaged or truncated"):
            load_table(save(content, name))
    gc.collect()  # a file left open would warn here
    with pytest.raises(DataError, match=r"not what its name says, a \.npz file"):
        load_table(save(good, "array.npz"))
    with pytest.raises(DataError, match=r"not what its name says, a \.npy file"):
        load_table(save(archive, "archive.npy"))


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv"])
def test_empty_files(save, name):
    with pytest.raises(DataError, match="an empty file"):
        load_table(save(b"", name))


def test_npz_that_leaves_a_choice(save):
    for arrays in ({"a": POINTS, "b": POINTS}, {"x": POINTS, "data": POINTS}):
        with pytest.raises(DataError, match="2 arrays could be the points in ") as caught:
            load_table(save(arrays))
        assert all(f"{key} (40, 3) float64" in str(caught.value) for key in arrays)
    with pytest.raises(DataError, match="0 arrays could be the points in no arrays"):
        load_table(save({}))
    with pytest.raises(DataError, match="0 arrays could be the points in a "):
        load_table(save({"a": np.arange(20)}))
    with pytest.raises(DataError, match="labels could be any of y, labels"):
        load_table(save({"x": POINTS, "y": np.arange(40), "labels": np.arange(40)}))


def test_text_columns(save):
    rows = "".join(f"{i},Rome,{'?' if i == 5 else i}\n" for i in range(20))
    with pytest.raises(DataError) as caught:
        load_table(save("n,city,size\n" + rows))
    message = str(caught.value)
    assert "text in 'city', 'size' (in 'city' for example 'Rome')" in message
    assert "--label-column 'city'" in message
    assert "--drop 'city'" in message
    with pytest.raises(DataError, match=r"text in 'size' \(in 'size' for example '\?'\)"):
        load_table(save("n,city,size\n" + rows), label_column="city")


@pytest.mark.parametrize("line", ["1,2", "1,2,3,4"])
def test_ragged_lines(save, line):
    rows = ["a,b,c", *(f"{i},{i * i},{-i}" for i in range(20))]
    rows[7] = line
    with pytest.raises(DataError, match=rf"line 8 has {line.count(',') + 1} fields, .* has 3"):
        load_table(save("\n".join(rows)))
    with pytest.raises(DataError, match="line 2 has 4 fields, the first line has 3"):
        load_table(save("a,b,c\n" + "1,2,3,4\n" * 20))  # pandas would make the first an index


def test_csv_unfit(save):
    with pytest.raises(DataError, match="no rows below the header"):
        load_table(save("a,b\n"))
    with pytest.raises(DataError, match="an empty file"):
        load_table(save("\n \n\n"))
    with pytest.raises(DataError, match="not a text file in UTF-8"):
        load_table(save(b"a,b\n" + b"\xff\xfe\x00," * 20))
    with pytest.raises(DataError, match="cannot be read as CSV"):
        load_table(save("a,b\n" + f"1,{'9' * 200_000}\n" * 12))
    with pytest.raises(DataError, match=r"column 1 has no name.*index=False"):
        load_table(save(pd.DataFrame(POINTS, columns=["a", "b", "c"]).to_csv()))


def test_blank_lines_do_no_harm(save):
    rows = "\n\n".join(f"{i},{i * i}" for i in range(20))
    assert len(everything(load_table(save("\na,b\n" + rows + "\n\n")))) == 20


def test_paths_refused(save, tmp_path):
    path = save(POINTS, "heights.npy")
    with pytest.raises(
        DataError, match=r"hights\.npy does not exist: did you mean 'heights\.npy' in"
    ):
        load_table(tmp_path / "hights.npy")
    with pytest.raises(DataError, match=r"no file in .* has a name like it"):
        load_table(tmp_path / "zzz.csv")
    with pytest.raises(DataError, match="nor does the folder"):
        load_table(tmp_path / "missing" / "heights.npy")
    with pytest.raises(DataError, match="is a folder"):
        load_table(tmp_path)
    with pytest.raises(
        DataError, match=r"suffix '\.xlsx' is unknown, allowed are \.npy, \.npz, \.csv, \.csv\.gz"
    ):
        load_table(path.rename(tmp_path / "heights.xlsx"))


YEARS = "2019,2020,2021\n" + "".join(f"0.{i},1.{i},-0.{i}\n" for i in range(10, 30))


def test_a_first_line_of_numbers_far_from_its_columns_is_asked_about(tmp_path, caplog):
    file = tmp_path / "years.csv"
    file.write_text(YEARS)
    with pytest.raises(DataError, match=r"first line \(2019, 2020, 2021\) is far .*--no-header"):
        load_table(file)
    named = load_table(file, header=True)
    assert named.columns == ("2019", "2020", "2021")
    plain = load_table(file, header=False)
    count = len(plain.train) + len(plain.validation) + len(plain.test)
    assert count == 1 + len(named.train) + len(named.validation) + len(named.test) == 21
    assert caplog.text == ""


def test_a_first_line_taken_for_data_is_said(tmp_path, caplog):
    file = tmp_path / "plain.csv"
    file.write_text("".join(YEARS.splitlines(keepends=True)[1:]))
    load_table(file)
    assert "no header found: the first line (0.10, 1.10, -0.10) is taken" in caplog.text
    assert "--header" in caplog.text
    caplog.clear()
    load_table(file, header=False)
    assert caplog.text == ""


def test_images_have_no_scale(tmp_path):
    file = tmp_path / "images.npy"
    np.save(file, np.zeros((20, 4, 4), np.uint8))
    with pytest.raises(InputError, match="--scale none is for tables"):
        load_table(file, scale="none")


def test_a_header_that_claims_terabytes_is_a_damaged_file(tmp_path):
    file = tmp_path / "large.npy"
    np.save(file, np.zeros((11, 2)))
    file.write_bytes(
        file.read_bytes().replace(b"(11, 2), }            ", b"(99999999999999, 2), }")
    )
    assert b"99999999999999" in file.read_bytes()
    with pytest.raises(DataError, match=r"damaged or truncated"):
        load_table(file)


@pytest.mark.parametrize("header", ["a{m}b{m}c", None])
@pytest.mark.parametrize(
    ("mark", "decimal"), [*((m, d) for m in ";\t| " for d in ".,"), (",", ".")]
)
@pytest.mark.parametrize("end", ["", "mark"])
def test_marks_between_fields_and_within_numbers_are_recognised(
    tmp_path, header, mark, decimal, end
):
    x = np.random.default_rng(0).normal(size=(30, 3)).round(3)
    lines = [] if header is None else [header.format(m=mark)]
    lines += [mark.join(f"{v:.3f}".replace(".", decimal) for v in row) for row in x]
    file = tmp_path / "table.csv"
    file.write_text("".join(line + (mark if end else "") + "\n" for line in lines))
    data = load_table(file, scale="none")
    found = torch.cat([data.train, data.validation, data.test]).numpy()
    assert np.sort(found, 0) == pytest.approx(np.sort(x, 0), abs=1e-6)
    assert data.columns == (
        ("column_1", "column_2", "column_3") if header is None else ("a", "b", "c")
    )


def points_of(path, **options):
    data = load_table(path, scale="none", **options)
    return torch.cat([data.train, data.validation, data.test]).numpy(), data


def test_a_mark_at_the_end_of_the_rows_alone_leaves_no_column(save):
    rows = "".join(f"{i},{i * i},\n" for i in range(12))
    found, data = points_of(save("a,b\n" + rows))
    assert data.columns == ("a", "b")
    assert sorted(found.tolist()) == [[i, i * i] for i in range(12)]


def test_one_column_of_decimal_commas_is_recognised(save):
    values = [i + i / 16 for i in range(12)]
    rows = "".join(f"{v}".replace(".", ",") + "\n" for v in values)
    found, data = points_of(save("weight\n" + rows))
    assert data.columns == ("weight",)
    assert sorted(found[:, 0].tolist()) == values
    # Without a name above them two columns of whole numbers look alike: only the user knows.
    found, _ = points_of(save(rows, "bare.csv"), decimal=",")
    assert found.shape == (12, 1)
    assert points_of(save(rows, "two.csv"), header=False)[0].shape == (12, 2)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a:b\n", {"delimiter": ":"}),
        ("a;b\n", {"delimiter": "semicolon"}),
        ("a\tb\n", {"delimiter": "tab"}),
        ("a\tb\n", {"delimiter": "\\t"}),
        ("a b\n", {"delimiter": "blank"}),
        ("a|b\n", {"delimiter": "|", "decimal": "."}),
    ],
)
def test_marks_can_be_named(save, text, options):
    mark = text[1]
    rows = "".join(f"{i / 4}{mark}{i * i}\n" for i in range(12))
    found, data = points_of(save(text + rows), **options)
    assert data.columns == ("a", "b")
    assert sorted(found.tolist()) == [[i / 4, i * i] for i in range(12)]


def test_quoted_decimal_commas_between_commas(save):
    rows = "".join(f'"{i},5","{i},25"\n' for i in range(12))
    with pytest.raises(DataError, match="text in 'a', 'b'"):
        load_table(save("a,b\n" + rows))
    semicolons = "a;b\n" + rows.replace('","', '";"')
    found, _ = points_of(save(semicolons), decimal=",")
    assert sorted(found.tolist()) == [[i + 0.5, i + 0.25] for i in range(12)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": "ab"}, "--delimiter 'ab': give one character, or comma, semicolon, tab"),
        ({"delimiter": ""}, "--delimiter '': give one character"),
        ({"delimiter": "\n"}, "give one character"),
        ({"decimal": ";"}, "--decimal ';': allowed are . and ,"),
        ({"decimal": ",", "delimiter": "comma"}, "--delimiter and --decimal are both ','"),
    ],
)
def test_marks_that_cannot_be(save, options, message):
    with pytest.raises(InputError, match=message):
        load_table(save("a,b\n1,2\n"), **options)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a,b\n1,2\n3\n", "another character than a comma separates them, name it (--delimiter)"),
        ("a;b\n1;2\n3;4;5\n", "another character than a semicolon"),
        ("a,b\n1,5,2,5\n3,5,4,5\n", "if commas stand within numbers, say --decimal ,"),
    ],
)
def test_ragged_lines_are_told_with_what_may_help(save, text, hint):
    with pytest.raises(DataError) as caught:
        load_table(save(text))
    assert hint in str(caught.value)


# --- formats, columns and gaps ---


def test_packed_text_and_tabs_are_read_as_the_plain_file(save, tmp_path):
    frame = pd.DataFrame(POINTS, columns=["a", "b", "c"])
    plain = load_table(save(frame.to_csv(index=False)))
    frame.to_csv(tmp_path / "x.csv.gz", index=False)
    frame.to_csv(tmp_path / "x.tsv", index=False, sep="\t")
    frame.to_csv(tmp_path / "x.tsv.gz", index=False, sep="\t")
    for name in ("x.csv.gz", "x.tsv", "x.tsv.gz"):
        data = load_table(tmp_path / name)
        assert data.columns == ("a", "b", "c")
        assert torch.equal(data.train, plain.train)
    (tmp_path / "cut.csv.gz").write_bytes((tmp_path / "x.csv.gz").read_bytes()[:100])
    with pytest.raises(DataError, match=r"cut\.csv\.gz cannot be read"):
        load_table(tmp_path / "cut.csv.gz")


def test_parquet_files_are_read_or_the_package_is_named(save, tmp_path):
    frame = pd.DataFrame(POINTS, columns=["a", "b", "c"]).assign(
        n=pd.array([1, None, 2, None] * 10)
    )
    try:
        frame.to_parquet(tmp_path / "x.parquet", index=False)
    except ImportError:
        (tmp_path / "x.parquet").write_bytes(b"PAR1")
        with pytest.raises(InputError, match=r"pip install 'hilbound\[parquet\]'"):
            load_table(tmp_path / "x.parquet")
        return
    data = load_table(tmp_path / "x.parquet", drop=["n"])
    plain = load_table(save(frame.drop(columns="n").to_csv(index=False)))
    assert torch.equal(data.train, plain.train)
    assert len(everything(load_table(tmp_path / "x.parquet", missing="drop"))) == 20
    with pytest.raises(InputError, match="--delimiter: for files of text"):
        load_table(tmp_path / "x.parquet", delimiter=";")


def test_some_columns_are_used(save):
    text = "id,height,city,weight,kind\n"
    text += "".join(f"{i},{i / 2},Rome,{i * i},{i % 2}\n" for i in range(20))
    for options in (
        {"columns": ["height", "weight"]},
        {"drop": ["id", "city"]},
        {"columns": ["weight", "height", "city"], "drop": ["city"]},
    ):
        found, data = points_of(save(text), label_column="kind", **options)
        assert data.columns == ("height", "weight")
        assert sorted(found.tolist()) == [[i / 2, i * i] for i in range(20)]
        assert torch.equal(data.train_labels, (2 * data.train[:, 0]).long() % 2)
    with pytest.raises(DataError, match=r"--drop: .* has no column 'hight': did you mean 'height'"):
        load_table(save(text), drop=["hight"])
    with pytest.raises(DataError, match=r"--columns: .* has no column 'x'"):
        load_table(save(text), columns=["x"])
    with pytest.raises(DataError, match="no column is left"):
        load_table(save(text), columns=["id"], drop=["id"])
    for options, named in (({"drop": ["a"]}, "--drop"), ({"header": True}, "--header")):
        with pytest.raises(InputError, match=f"{named}: for tables whose columns have names"):
            load_table(save(POINTS), **options)


GAPS = "a,b,kind\n" + "".join(
    f"{i},{'' if i % 5 == 2 else 2 * i},{'even' if i % 2 == 0 else 'odd'}\n" for i in range(40)
)


def test_rows_with_gaps_are_left_out_and_told(save, caplog):
    with pytest.raises(DataError, match=r"8 NaN or infinite .*--missing drop, --missing impute"):
        load_table(save(GAPS), label_column="kind")
    found, data = points_of(save(GAPS), label_column="kind", missing="drop")
    assert sorted(found.tolist()) == [[i, 2 * i] for i in range(40) if i % 5 != 2]
    assert torch.equal(data.train_labels, data.train[:, 0].long() % 2)
    assert "8 of 40 rows have missing values and are left out" in caplog.text
    x = POINTS.copy()
    x[:3, 0] = np.nan
    assert len(everything(load_table(save(x), missing="drop"))) == 37
    x[:, 0] = np.nan
    with pytest.raises(DataError, match="no row is complete"):
        load_table(save(x), missing="drop")
    with pytest.raises(InputError, match="missing='mean', allowed are 'refuse' and 'drop' and"):
        load_table(save(x), missing="mean")


def test_gaps_are_filled_in_from_training_rows_alone(save, caplog):
    """Beside the filled column stands one that decides it: the guess is near the truth."""
    found, data = points_of(save(GAPS), label_column="kind", missing="impute")
    assert "8 missing values in 8 rows were filled in from similar rows ('b')" in caplog.text
    found = found[found[:, 0].argsort()]
    assert found[:, 0].tolist() == list(range(40))
    gaps = np.arange(40) % 5 == 2
    assert found[~gaps, 1].tolist() == (2 * np.arange(40)[~gaps]).tolist()
    assert np.abs(found[gaps, 1] - 2 * np.arange(40)[gaps]).max() <= 8
    # Whole numbers stay whole.
    assert found[:, 1].tolist() == np.round(found[:, 1]).tolist()
    assert data.whole == (0, 1)
    # What held-out rows hold has no part in the guesses for training rows.
    rows = split_rows(40, generator=torch.Generator().manual_seed(0))
    lines = GAPS.splitlines()
    for i in rows.test.tolist():
        lines[i + 1] = f"{1000 + i},-9e5,odd"
    other = load_table(save("\n".join(lines)), label_column="kind", missing="impute", scale="none")
    assert torch.equal(other.train, data.train)


@pytest.mark.parametrize(
    ("value", "message"), [(np.inf, "1 NaN or infinite"), (1e308, "1 values too large for float32")]
)
def test_gaps_beside_a_value_that_is_out_of_range(save, value, message):
    x = POINTS.copy()
    x[3, 1], x[5, 0] = value, np.nan
    with pytest.raises(DataError, match=message):
        load_table(save(x), missing="impute")


def test_lists_as_labels(tmp_path):
    pytest.importorskip("pyarrow", reason="install pyarrow to run this")
    path = tmp_path / "x.parquet"
    frame = pd.DataFrame(POINTS, columns=["a", "b", "c"])
    frame["kind"] = [[i % 2] for i in range(len(frame))]
    frame.to_parquet(path)
    assert set(load_table(path, label_column="kind").train_labels.tolist()) == {0, 1}


def test_a_gap_that_nothing_can_fill(save):
    x = POINTS.copy()
    x[split_rows(40, generator=torch.Generator().manual_seed(0)).train.numpy(), 1] = np.nan
    with pytest.raises(DataError, match="'column_2' without a value in any training row"):
        load_table(save(x), missing="impute")
