"""scikit-learn's own checks of an estimator."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from hilbound.estimators import ConditionalDensityEstimator


def expected(_estimator):
    reason = "rows are drawn in batches: a weight of two is two rows only on average, as in MLP"
    return {
        "check_sample_weight_equivalence_on_dense_data": reason,
        "check_sample_weight_equivalence_on_sparse_data": reason,
    }


@parametrize_with_checks(
    [ConditionalDensityEstimator(max_epochs=20)], expected_failed_checks=expected
)
def test_scikit_learns_rules(estimator, check):
    check(estimator)
