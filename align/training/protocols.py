"""Who is trained on and who is tested: within a subject, pooled over subjects, or leaving one subject out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from align.data.names import joined_name, subject_name
from align.errors import UserError


@dataclass(frozen=True)
class Job:
    """One encoder: the subjects whose training rows it is fitted to, and those whose test rows it is for."""

    trained_on: tuple[str, ...]
    tested_on: tuple[str, ...]

    @property
    def label(self) -> str:
        """Short and telling, for people: sub-01, loso_sub-01, pooled_01-03."""
        if self.trained_on == self.tested_on:
            one = len(self.tested_on) == 1
            return f"sub-{self.tested_on[0]}" if one else f"pooled_{self.tested_on[0]}-{self.tested_on[-1]}"
        return f"loso_sub-{self.tested_on[0]}"

    @property
    def name(self) -> str:
        """As `label`, for names of folders: no two jobs of one protocol share it. Three subjects or more add a hash."""
        own = [subject_name(subject) for subject in self.tested_on]
        if self.trained_on != self.tested_on:
            return f"loso_{own[0]}"
        if len(own) == 1:
            return own[0]
        ends = [name.removeprefix("sub-").replace("-", "%2D") for name in (own[0], own[-1])]
        return joined_name(["pooled", "-".join(ends)], list(self.tested_on) if len(own) > 2 else None)


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
