import pytest

from evaluation.scorers.answers import is_right
from evaluation.scorers.answers.latex import equivalent, is_available, last_box

needs_math_verify = pytest.mark.skipif(not is_available(), reason="math-verify is not installed")


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
    ("answer", "reference", "right"),
    [
        ("The answer is .5", "5", False),
        ("The answer is .5", "0.5", True),
        (r"\boxed{.25}", "25", False),
        (r"\boxed{.25}", ".25", True),
        ("The answer is 5%.", "5", True),
        (r"\boxed{1{,}234}", "1234", True),
        (r"\boxed{100{,}000}", "100000", True),
        (r"\boxed{1234}", "1{,}234", True),
        (r"The answer is \(12\).", "12", True),
    ],
)
def test_a_leading_point_and_commas_between_thousands_are_part_of_a_number(
    answer: str, reference: str, right: bool
) -> None:
    assert is_right(answer, reference) is right


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("The answer is 42.\n\nThis fits all 3 clues.\n\nI hope this answer helps!", "42"),
        ("The answer is 12.\n\nSo our answer fits all 2 clues.", "12"),
        ("#### 14\nI hope that the answer is clear.", "14"),
        ("Is the answer 7? No: the answer is 9.", "9"),
        ("The answer to part 2 is 8. It took 3 steps.", "8"),
        ("The answer should be 9, and 2 are lost.", "9"),
        ("**Final Answer**\n\n42\n\nThis took 3 steps.", "42"),
        ("The answer is $x=5$. I hope that the answer is clear.", "x=5"),
        ("**Answer:** x=5", "x=5"),
        ("The answer is C.\n\nI hope that this answer is of use to you.", "C"),
        ("The correct answer (B) is the only one; A is far off.", "B"),
        ("Answer C. Option A is too weak.", "C"),
    ],
)
def test_the_last_marker_with_an_answer_counts(answer: str, reference: str) -> None:
    assert is_right(answer, reference) is True


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Answer: After 3 days, she has 12 eggs.", "12"),
        ("Answer: She has 12 eggs after 3 days.", "12"),
        ("Answer: For the 16 glasses, Ken pays $64.", "64"),
        ("The answer is in 5 days. Note that 7 is prime.", "5"),
        ("The answer is 12, since 3 x 4 = 12 and 5 remain", "12"),
        ("The answer is 12 x 3 = 36", "36"),
        ("The answer is 12 × 3 = 36.", "36"),
        ("The answer is $12 x 3 = 36$", "36"),
        ("The answer is **5 * 3 = 15**.", "15"),
        ("The answer is x = 5 x 3 = 15", "15"),
        ("Answer: She sold 48 + 24 = 72 clips.", "72"),
    ],
)
def test_of_several_numbers_the_answer_counts(answer: str, reference: str) -> None:
    assert is_right(answer, reference) is True


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("The answer: I don't know.", "I", False),
        ("The answer: I’m not sure, perhaps B.", "B", True),
        ("The correct answer is: I think it is C.", "C", True),
        ("Answer: A good choice would be C", "C", True),
        ("The answer is a bit tricky. I would say (C).", "C", True),
        ("Answer: X-rays go through flesh, so D", "D", True),
        ("The answer is (c)", "C", True),
        ("I would pick option c here.", "C", True),
        ("The answer is A because it floats.", "A", True),
        ("The answer is A, since ice floats.", "A", True),
        ("Answer: I", "I", True),
        ("Answer A Lisbon", "A", True),
    ],
)
def test_words_are_not_option_letters_but_small_letters_in_brackets_are(
    answer: str, reference: str, right: bool
) -> None:
    assert is_right(answer, reference) is right


@pytest.mark.parametrize(
    "piece",
    [
        *(r"\( ", r"\[ ", "A a ", "answer is ", "answer to ", "answer\n"),
        *("that is wrong ", "#### 1\nQuestion:\n", "2 2/3 ", "10*5*", "1,111,", "not 5 ", "<|im_end|>"),
    ],
)
@pytest.mark.timeout(20)  # quadratic time would take minutes
def test_a_hostile_answer_of_any_length_is_read_in_linear_time(piece: str) -> None:
    answer = piece * (200_000 // len(piece))
    assert is_right(answer, "Z") is False
    assert is_right(answer, "12") is False


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
def test_equal_latex_text_is_right_without_math_verify(
    answer: str, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.scorers.answers.latex.is_available", lambda: False)
    assert is_right(answer, reference) is True


def test_different_latex_text_needs_math_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.scorers.answers.latex.is_available", lambda: False)
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
def test_latex_is_compared_by_value(answer: str, reference: str, right: bool) -> None:
    assert is_right(answer, reference) is right


@needs_math_verify
def test_an_answer_that_takes_forever_is_not_right_and_the_next_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evaluation.scorers.answers.latex.TIMEOUT_SECONDS", 2.0)
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


@needs_math_verify
@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        (r"\boxed{10^{5}}", "100000", True),
        (r"\boxed{10^5}", "100000", True),
        (r"\boxed{10^{5}}", "10", False),
        ("The answer is $2^{10}$.", "1024", True),
        (r"\boxed{10*5}", "50", True),
        (r"\boxed{10*5}", "10", False),
        (r"\boxed{1.5e3}", "1500", True),
        ("The answer is 1.5e3", "1500", True),
        (r"\boxed{2\frac{2}{3}}", "8/3", True),
        (r"\boxed{2\frac{2}{3}}", "2 2/3", True),
    ],
)
def test_an_expression_with_the_value_of_the_reference_is_right(
    answer: str, reference: str, right: bool
) -> None:
    assert is_right(answer, reference) is right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("The answer is 2 2/3", "8/3", True),
        ("The answer is 2 2/3 cups.", "8/3", True),
        ("The answer is 2 and 2/3.", "8/3", True),
        ("The answer is 2⅔", "8/3", True),
        ("It takes ½ hour.", "0.5", True),
        ("The answer is -1 1/2", "-1.5", True),
        ("The answer is 8/3", "2 2/3", True),
        ("The answer is 2 2/3", "2", False),
        ("The answer is 2 2/3", "2/3", False),
    ],
)
def test_a_mixed_number_is_one_number(answer: str, reference: str, right: bool) -> None:
    assert is_right(answer, reference) is right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Answer: b", "B", True),
        ("Answer: b.", "B", True),
        ("**Answer:** b) Paris", "B", True),
        ("the answer is a", "A", True),
        ("The answer is c because ice floats.", "C", True),
        (r"\boxed{d}", "D", True),
        ("b", "B", True),
        ("b) Paris", "B", True),
        ("The answer is a bit tricky. I would say (C).", "C", True),
        ("Answer: a good choice would be C", "C", True),
        ("Answer: i think it is C.", "C", True),
        ("The answer is x = 5", "X", False),
    ],
)
def test_a_small_letter_that_is_the_whole_answer_counts(answer: str, reference: str, right: bool) -> None:
    assert is_right(answer, reference) is right


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("#### 18\n\nQuestion: How many?\nAnswer: 5", "18"),
        ("The answer is 18.\n\nQ: How many?\nA: The answer is 5.", "18"),
        ("The answer is 18.\n\n**Question 2:** How many?\n\\boxed{5}", "18"),
        ("The answer is 18.<|im_end|>\n<|im_start|>user\nThe answer is 5.", "18"),
        ("18\n\nQuestion: How many?\nAnswer: 5", "18"),
        ("Question: How many?\nAnswer: 5", "5"),
        ("The answer is B.\n\nHuman: And this?\nAssistant: The answer is C.", "B"),
    ],
)
def test_text_after_an_invented_next_question_does_not_count(answer: str, reference: str) -> None:
    assert is_right(answer, reference) is True


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("My first answer was 5, but that forgets the gift. It is 7.", "7"),
        ("The answer is 5. Wait, that is wrong: it is 7.", "7"),
        ("My initial answer of 5 was wrong. The answer is 7.", "7"),
        ("The answer is not 5. It is 7.", "7"),
        ("The answer is not 5 but 7.", "7"),
        ("#### 5\nScratch that, I forgot the gift: #### 7", "7"),
        (r"\boxed{5}. No, that ignores the gift, so it is 7.", "7"),
        ("The answer is B. Wait, that's incorrect, it must be C.", "C"),
        ("That is wrong for x = 3, so the answer is 7.", "7"),
        ("The answer is 7. Many say 5, but that ignores the gift.", "7"),
    ],
)
def test_a_retracted_answer_does_not_count(answer: str, reference: str) -> None:
    assert is_right(answer, reference) is True


@pytest.mark.parametrize(
    ("reference", "right", "wrong"),
    [
        ("Each pen is $2, so 3 x $2 = $<<3*2=6>>6.\n#### 6", "The answer is 6.", "The answer is 2."),
        ("Twice 7 is 14.\nThe answer is 14.", "14", "7"),
        (r"We add and get $\boxed{\frac{3}{4}}$.", r"\boxed{\frac{3}{4}}", r"\boxed{3}"),
        ("(B)", "Answer: B", "Answer: C"),
        ("B)", "Answer: B", "Answer: C"),
        ("18 dollars", "She earns $18.", "She earns $20."),
    ],
)
def test_a_worked_solution_is_a_reference_by_its_final_answer(reference: str, right: str, wrong: str) -> None:
    assert is_right(right, reference) is True
    assert is_right(wrong, reference) is False


@pytest.mark.parametrize(
    "reference",
    [
        "Photosynthesis turns light into energy that plants can store.",
        "First add both numbers.\nThen divide by 2.",
        "####",
    ],
)
def test_prose_is_a_reference_of_unknown_form(reference: str) -> None:
    assert is_right("The answer is 2.", reference) is None


@pytest.mark.parametrize("piece", [r"\boxed{", r"\boxed{5", "{", "#### ", "answer is ", "answer: 5 "])
@pytest.mark.timeout(20)  # quadratic time would take minutes
def test_an_answer_that_repeats_a_mark_is_compared_in_linear_time(piece: str) -> None:
    assert is_right(piece * 20_000, "7") is False
    assert is_right(piece * 20_000 + r" \boxed{7}", "7") is True
