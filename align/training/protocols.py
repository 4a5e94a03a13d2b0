"""Who is trained on and who is tested: within a subject, pooled over subjects, or leaving one subject out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from align.errors import UserError


@dataclass(frozen=True)
class Job:
    """One encoder: the subjects whose training rows it is fitted to, and those whose test rows it is for."""

    trained_on: tuple[str, ...]
    tested_on: tuple[str, ...]

    @property
    def label(self) -> str:
        """Short and telling, for names of folders: sub-01, loso_sub-01, pooled_01-02."""
        if self.trained_on == self.tested_on:
            one = len(self.tested_on) == 1
            return f"sub-{self.tested_on[0]}" if one else f"pooled_{self.tested_on[0]}-{self.tested_on[-1]}"
        return f"loso_sub-{self.tested_on[0]}"


def _intra(subjects: tuple[str, ...]) -> list[Job]:
    return [Job((subject,), (subject,)) for subject in subjects]


def _pooled(subjects: tuple[str, ...]) -> list[Job]:
    return [Job(subjects, subjects)]


def _loso(subjects: tuple[str, ...]) -> list[Job]:
    if len(subjects) < 2:
        raise UserError(f"protocol=loso needs two subjects or more, got {', '.join(subjects) or 'none'}")
    return [Job(tuple(other for other in subjects if other != subject), (subject,)) for subject in subjects]


PROTOCOLS: dict[str, Callable[[tuple[str, ...]], list[Job]]] = {"intra": _intra, "pooled": _pooled, "loso": _loso}


def plan_jobs(protocol: str, subjects: list[str]) -> list[Job]:
    """The encoders that ``protocol`` (intra, pooled, loso) asks for; raises `UserError` for loso of one subject."""
    return PROTOCOLS[protocol](tuple(dict.fromkeys(subjects)))
