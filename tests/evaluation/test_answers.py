import pytest

from evaluation.answers import is_right
from evaluation.latex import available, equivalent, last_box

needs_math_verify = pytest.mark.skipif(not available(), reason="math-verify is not installed")


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("She has 3 boxes of 4, so 12.", "12", True),
        ("The total is $1,200.00", "1200", True),
        ("12 apples\n#### 14", "14", True),
        (r"So $x=2$ and the result is \boxed{7}, as in line 3.", "7", True),
        (r"\boxed{\text{7 apples}}", "7", True),
        (r"\boxed{\$18}", "18", True),
        (r"The exponent is 3, so \boxed{2^{3}}", "3", False),
        ("The answer is 5 because 2 + 3 = 5, not 6.", "5", True),
        ("Half, that is 1/2", "0.5", True),
        ("It is -4.", "4", False),
        ("No idea.", "4", False),
        ("The answer is (C).", "C", True),
        (r"\boxed{\text{(C)}}", "C", True),
        ("A is wrong, I think B", "B", True),
        ("C", "D", False),
        ("A", "A", True),
        ("", "A", False),
        ("The correct choice is (A)", "A", True),
        ("I would pick option A", "A", True),
        ("Option A is the one: it floats.", "A", True),
        ("Therefore, A.", "A", True),
        ("A) Paris", "A", True),
        ("A. Paris", "A", True),
        ("B is right. A cat has four legs, and I know it.", "B", True),
        ("The answer is 5 * 3 = 15", "15", True),
        ("The answer is 2 + 3 = 4 + 1 = 5 apples", "5", True),
        ("The answer is 12 (= 3 * 4)", "12", True),
        ("The answer is 2 * 600 = $1,200.", "1200", True),
        ("The answer is x = 5, since 5 - 1 = 4.", "5", True),
        ("The answer is 5, as 2 + 1 = 3 are left.", "5", True),
    ],
)
def test_the_final_number_or_letter_is_compared_exactly(
    answer: str, reference: str, right: bool | None
) -> None:
    assert is_right(answer, reference) is right


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"Thus \boxed{\frac{3}{56}}.", r"\frac{3}{56}"),
        (r"\boxed{\dfrac{\pi}{2}}", r"\frac{\pi}{2}"),
        (r"$\left( 3, \frac{\pi}{2} \right)$", r"(3,\frac{\pi}{2})"),
        (r"The fastest is \boxed{\text{Ada}}", r"\text{Ada}"),
        (r"We get \[ 3\sqrt{13}. \]", r"3\sqrt{13}"),
        ("The answer is x=5.", "x=5"),
        ("Both: $1, -2$", "1,-2"),
        (r"\boxed{52_8}", "52_8"),
    ],
)
def test_the_same_latex_is_right_without_any_library(
    answer: str, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.latex.available", lambda: False)
    assert is_right(answer, reference) is True


def test_other_latex_cannot_be_compared_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.latex.available", lambda: False)
    assert is_right(r"\boxed{\sqrt{12}}", r"2\sqrt{3}") is None


@needs_math_verify
@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        (r"\boxed{\sqrt{12}}", r"2\sqrt{3}", True),
        (r"\boxed{0.5}", r"\frac{1}{2}", True),
        (r"\boxed{(x+1)^2}", "x^2+2x+1", True),
        (r"\boxed{5}", "x=5", True),
        (r"\boxed{\frac{24}{2}}", "12", True),
        (r"\boxed{-5i+6}", "6 - 5i", True),
        (r"\boxed{\{2,1\}}", r"\{1,2\}", True),
        (r"\boxed{(2,1)}", "(1,2)", False),
        (r"\boxed{\frac{\pi}{3}}", r"\frac{\pi}{2}", False),
        ("No formula at all.", r"\frac{\pi}{2}", False),
        (r"\boxed{__import__('os').getcwd()}", r"\frac{1}{2}", False),
    ],
)
def test_latex_is_right_where_it_is_equal(answer: str, reference: str, right: bool) -> None:
    assert is_right(answer, reference) is right


@needs_math_verify
def test_an_answer_that_no_computer_finishes_is_not_right_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evaluation.latex.SECONDS", 2.0)
    assert is_right(r"\boxed{9^{9^{9^{9}}}}", r"\frac{1}{2}") is False
    assert equivalent(r"\frac{2}{4}", r"\frac{1}{2}") is True


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{a} and \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a} and \boxed{\frac{1}{2}", "a"),
        ("none", None),
        ("\\boxed{" * 5000, None),
    ],
)
def test_the_last_closed_box_counts(text: str, box: str | None) -> None:
    assert last_box(text) == box
