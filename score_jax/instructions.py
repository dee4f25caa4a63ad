"""The words around problems: prompts and correction instructions, per kind of task.

From Kumar et al. 2025 (arXiv 2409.12917), appendix: the maths prompt, the code frame (that of Austin et al.
2021, arXiv 2108.07732) and the two correction instructions. How the parts are set apart (labels, line
breaks) is this project's choice. All are plain text; a chat format is wrapped around them elsewhere.

To ask for feedback and then for its use is the scheme of Self-Refine (Madaan et al. 2023, arXiv 2303.17651);
the wording of the four instructions for it is this project's.
"""

from __future__ import annotations

from collections.abc import Sequence

_MATH_ANSWER = (
    "At the end of the Solution, when you give your final answer, write it in the form "
    '"Final Answer: The final answer is $answer$. I hope it is correct."'
)

MATH_PROMPT = (
    "You are a math expert. When you respond, respond only with the Solution of the final Problem, thinking "
    f"step by step. {_MATH_ANSWER}"
)

MATH_CORRECTION = (
    "There might be an error in the solution above because of lack of understanding of the question. Please "
    "correct the error, if any, and rewrite the solution. Only output the final solution! "
    f"{_MATH_ANSWER}\n"
)

MATH_FEEDBACK = (
    "Check the solution above step by step and say in a few sentences what is wrong with it, if anything. "
    "Do not write a new solution yet.\n"
)

MATH_REFINE = (
    "Use this feedback: correct the error, if any, and rewrite the solution. Only output the final solution! "
    f"{_MATH_ANSWER}\n"
)

CODE_PROMPT = "You are an expert Python programmer, and here is your task:"

CODE_CORRECTION = (
    "# There might be an error in the code above because of lack of understanding of the question. Please "
    "correct the error, if any, and rewrite the solution. Only output the final correct Python program!\n"
)

CODE_FEEDBACK = (
    "# Check the code above and say in a few sentences what is wrong with it, if anything. Do not write a "
    "new program yet.\n"
)

CODE_REFINE = (
    "# Use this feedback: correct the error, if any, and rewrite the solution. Only output the final correct "
    "Python program!\n"
)

# What the code frame sets around a program.
BEGIN, DONE = "[BEGIN]", "[DONE]"


def math_prompt(problem: str) -> str:
    """A zero-shot maths prompt: chain of thought, then the answer marker."""
    return f"{MATH_PROMPT}\n\nProblem:\n{problem}\n\nSolution:\n"


def code_attempt(program: str) -> str:
    """A program as an attempt to continue a code prompt with."""
    return f"{program}\n{DONE}"


def tests_prompt(text: str, tests: Sequence[str]) -> str:
    """The MBPP prompt of one problem, up to where the program begins."""
    lines = "\n".join(tests)
    return f"{CODE_PROMPT} {text} Your code should pass these tests:\n\n{lines}\n{BEGIN}\n"


def definition_prompt(source: str) -> str:
    """The HumanEval prompt, zero-shot: the MBPP frame around a signature and its docstring.

    The paper says no more of it than that it is zero-shot; the frame is MBPP's, so that one model meets
    one form in training and evaluation, and the wording of the task itself is this project's.
    """
    return f"{CODE_PROMPT} Write code to solve the following problem.\n\n{source.strip()}\n{BEGIN}\n"
