"""The 95 % interval of a mean, against the tables of Student's t and scipy."""

import numpy as np
import pytest
from scipy.stats import t as student

from hf_audiolang.evaluation.metrics.intervals import half_width_95, student_t


@pytest.mark.parametrize(("degrees", "bound"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (60, 2)])
def test_bounds_are_those_of_the_tables(degrees, bound):
    assert student_t(degrees) == pytest.approx(bound, abs=6e-4)
    assert student_t(degrees) == pytest.approx(student.ppf(0.975, degrees), rel=1e-12)


def test_the_half_width_is_that_of_the_mean_of_a_sample():
    # 1, 2, 6: mean 3, deviation sqrt((4 + 1 + 9) / 2) = sqrt(7)
    assert half_width_95([1, 2, 6]) == pytest.approx(4.30265 * (7 / 3) ** 0.5, rel=1e-6)
    values = np.random.default_rng(0).standard_normal(5)
    low, high = student.interval(0.95, 4, loc=values.mean(), scale=values.std(ddof=1) / 5**0.5)
    assert half_width_95(values) == pytest.approx((high - low) / 2, rel=1e-12)
    assert half_width_95([0.25, 0.25, 0.25]) == 0


def test_a_single_value_has_no_interval():
    with pytest.raises(ValueError, match=r"two numbers or more, got 1\. Run another seed"):
        half_width_95([0.5])
    with pytest.raises(ValueError, match=r"at least 1, got 0\. Give the number of values less one"):
        student_t(0)
