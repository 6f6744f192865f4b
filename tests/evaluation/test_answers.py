import pytest

from evaluation.answers import is_right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("She has 3 boxes of 4, so 12.", "12", True),
        ("The total is $1,200.00", "1200", True),
        ("12 apples\n#### 14", "14", True),
        (r"So $x=2$ and the result is \boxed{7}, as in line 3.", "7", True),
        ("The answer is 5 because 2 + 3 = 5, not 6.", "5", True),
        ("Half, that is 1/2", "0.5", True),
        ("It is -4.", "4", False),
        ("No idea.", "4", False),
        ("The answer is (C).", "C", True),
        ("A is wrong, I think B", "B", True),
        ("C", "D", False),
        ("A", "A", True),
        ("whatever", r"\frac{\pi}{2}", None),
    ],
)
def test_the_final_number_or_letter_is_compared_exactly(
    answer: str, reference: str, right: bool | None
) -> None:
    assert is_right(answer, reference) is right
