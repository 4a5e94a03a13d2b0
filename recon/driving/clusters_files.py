"""Clusters of units as tables, facts for a JSON file and lines for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.data.names import subject_name
from align.files import write_atomic
from recon.comparison.files import csv_text
from recon.driving.clusters import Clusters
from recon.driving.clusters_picture import draw_clusters


def cluster_rows(subject: str, one: Clusters) -> list[dict[str, Any]]:
    """One row for each cluster."""
    return [
        {
            "subject": subject,
            "cluster": k + 1,
            "n_units": len(one.units(k)),
            "units": " ".join(one.units(k)),
            "score": float(one.score[k]),
            "score_of_random_clusters": float(one.chance[k]),
            "p": float(one.p[k]),
            "q": float(one.q[k]),
        }
        for k in range(len(one))
    ]


def cluster_picture_rows(subject: str, one: Clusters) -> list[dict[str, Any]]:
    """One row for each cluster and picture."""
    return [
        {
            "subject": subject,
            "cluster": k + 1,
            "rank": rank + 1,
            "picture": one.stimuli.ids[int(row)],
            "predicted": float(one.predicted[k, rank]),
            "measured": float(one.measured[k, rank]),
        }
        for k in range(len(one))
        for rank, row in enumerate(one.rows[k])
    ]


def cluster_facts(subject: str, one: Clusters) -> dict[str, Any]:
    """For the JSON file."""
    return {
        "count": len(one),
        "tried": None if one.tried is None else {str(count): value for count, value in one.tried.items()},
        "agreement": one.agreement,
        "agreement_p": one.agreement_p,
        "clusters": cluster_rows(subject, one),
        "pictures": cluster_picture_rows(subject, one),
    }


def write_clusters(subject: str, one: Clusters | None, title: str, folder: Path) -> None:
    """Two tables and a picture, where there are clusters."""
    if one is None:
        return
    name = subject_name(subject)
    paths = [folder / f"{stem}_{name}" for stem in ("clusters", "clusters_pictures")]
    table, pictures = (path.with_name(f"{path.name}.csv") for path in paths)
    drawn = folder / f"clusters_{name}.png"
    write_atomic(table, csv_text(cluster_rows(subject, one)))
    write_atomic(pictures, csv_text(cluster_picture_rows(subject, one)))
    draw_clusters(one, f"{title}; subject {subject}", drawn)


def told_clusters(found: dict[str, Any]) -> list[str]:
    """Lines for the terminal, of `cluster_facts`."""
    chosen = ""
    if found["tried"] is not None:
        chosen = (
            f", chosen by their agreement between halves of the first part ({found['tried'][str(found['count'])]:.2f})"
        )
    lines = [
        f"    {found['count']} clusters{chosen}; both parts of the pictures agree: adjusted Rand index "
        f"{found['agreement']:.2f}, p {found['agreement_p']:.2g}"
    ]
    for row in found["clusters"]:
        lines.append(
            f"      cluster {row['cluster']}: {row['n_units']} units, set apart by {row['score']:.2f} deviations "
            f"(random clusters {row['score_of_random_clusters']:.2f}), q {row['q']:.2g}"
        )
    return lines
