"""verification.md: every check, what it does, and how it is graded."""

from __future__ import annotations

import inspect

from pretrain_mlip.validation.verification.subject import LETTERS
from pretrain_mlip.validation.verification.verify import CHECKS


def verification_page() -> str:
    """A table of the checks and one of the grades."""
    lines = ["# Verification checks", "", "What `pretrain-mlip verify` does; see [Verifying](../verifying.md).", ""]
    lines += ["| check | | what is done |", "|---|---|---|"]
    for check in CHECKS:
        said = " ".join(inspect.getdoc(check.run).split("\n\n")[0].split())
        lines.append(f"| {check.name} | {check.category} | {said} |")
    limits = ", ".join(f"{letter} up to {2.220446e-16 * 10**score:.0e}" for letter, score in LETTERS.items())
    lines += ["", f"Graded errors are relative: {limits}, F above.", ""]
    return "\n".join(lines)
