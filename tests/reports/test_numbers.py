"""Every number that a report or a model card shows stands in the records, and one that does not is found out."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reports.taken_apart import (
    ROWS,
    Evidence,
    Shown,
    entries,
    entry_of,
    in_pool,
    parse,
    recorded,
    take_apart,
    take_card_apart,
    tokens,
    triples,
)
from tumortrace.reports.report import write_model_card, write_report

RECORDS = ("run.json", "metrics.json", "recipe.yaml", "model/model.json")  # without predictions: no figure is drawn


@pytest.fixture(scope="module")
def told(small_run: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained run, and a made-up one with explanations and scans, each with its report and its card."""
    made_up = shutil.copytree(run, tmp_path_factory.mktemp("told") / run.name)
    write_report(made_up)
    write_model_card(made_up)
    return {"trained": small_run, "made-up": made_up}


def unknown(shown: list[Shown]) -> list[str]:
    return [f"{each.section}: {each.token!r} beside {each.beside!r}" for each in shown if not each.known]


def altered(token: str) -> str:
    """The number with another last digit."""
    place = max(index for index, character in enumerate(token) if character.isdigit())
    return f"{token[:place]}{(int(token[place]) + 3) % 10}{token[place + 1 :]}"


@pytest.mark.parametrize("which", ["trained", "made-up"])
def test_every_number_of_the_report_is_on_record(told: dict[str, Path], which: str) -> None:
    """Tables, cards, sentences, captions and alternative texts hold no number that the records lack."""
    evidence = Evidence(told[which])
    shown = take_apart((told[which] / "report.html").read_text("utf-8"), evidence)
    assert len(shown) > 200
    assert not unknown(shown)


@pytest.mark.parametrize("which", ["trained", "made-up"])
def test_every_number_of_the_card_is_on_record(told: dict[str, Path], which: str) -> None:
    """Neither its sentences, nor its tables, nor the answers to the guidelines hold a number that the records lack."""
    evidence = Evidence(told[which])
    shown = take_card_apart((told[which] / "model_card.md").read_text("utf-8"), evidence)
    assert len(shown) > 200
    assert not unknown(shown)


@pytest.mark.parametrize("which", ["trained", "made-up"])
def test_a_wrong_number_is_found_out(told: dict[str, Path], which: str) -> None:
    """With another last digit, most numbers are in no record; small counts and the like may be so by chance."""
    evidence = Evidence(told[which])
    shown = take_apart((told[which] / "report.html").read_text("utf-8"), evidence)
    missed = sum(replace(each, token=altered(each.token)).known for each in shown)
    assert missed < 0.15 * len(shown)
    card = take_card_apart((told[which] / "model_card.md").read_text("utf-8"), evidence)
    missed = sum(replace(each, token=altered(each.token)).known for each in card)
    assert missed < 0.2 * len(card)


@pytest.mark.parametrize("which", ["trained", "made-up"])
def test_every_interval_stands_beside_its_own_value(told: dict[str, Path], which: str) -> None:
    """A value and its ends are one entry of a record, or one share counted anew from the predictions; with another
    last digit in any of the three, hardly ever."""
    evidence = Evidence(told[which])
    counted = evidence.decided()
    known = [*entries(evidence.records), *(tuple(counted[place : place + 3]) for place in range(len(counted) - 2))]

    def recorded(shown: tuple[str, ...]) -> bool:
        return any(all(in_pool(token, (number,)) for token, number in zip(shown, entry)) for entry in known)

    page = parse((told[which] / "report.html").read_text("utf-8")).text()
    card = (told[which] / "model_card.md").read_text("utf-8").replace("\\", "")
    found = [*triples(page), *triples(card)]
    assert len(found) > 80
    assert [shown for shown in found if not recorded(shown)] == []
    wrong = [(*one[:k], altered(one[k]), *one[k + 1 :]) for one in found for k in range(3)]
    assert sum(recorded(one) for one in wrong) < 0.03 * len(wrong)


def test_a_number_changed_in_the_page_fails(told: dict[str, Path]) -> None:
    """A digit changed in a cell, in a card, in the verdict or in a caption of the page itself is named."""
    folder = told["made-up"]
    evidence, page = Evidence(folder), (folder / "report.html").read_text("utf-8")
    metrics = evidence.judged
    value = f"{metrics['specificity']['value']:.3f}"[1:]
    places = [place.start() for place in re.finditer(re.escape(value), page)]
    assert len(places) >= 3  # the verdict, the card, the cell
    for place in places[:4]:
        wrong = f"{page[:place]}.999{page[place + 4 :]}"
        assert len(unknown(take_apart(wrong, evidence))) == 1


@pytest.mark.parametrize("which", ["trained", "made-up"])
def test_each_cell_is_the_entry_that_it_names(told: dict[str, Path], which: str) -> None:
    """A cell that names an entry of a record shows that value and interval, and every metric has a cell."""
    evidence = Evidence(told[which])
    page = parse((told[which] / "report.html").read_text("utf-8"))
    cells = {tuple(path): cell.text() for cell in page.all("td") if (path := recorded(cell))}
    for path, text in cells.items():
        assert tokens(text) == printed(entry_of(evidence.records, list(path))), path
    metrics = {
        ("metrics.json", split, name)
        for split, entries in evidence.metrics.items()
        for name, entry in entries.items()
        if isinstance(entry, dict) and set(entry) == {"value", "ci95"}
    }
    assert len(metrics) == 39
    assert metrics <= set(cells)


def printed(entry: dict) -> list[str]:
    """Value and interval at three decimals, written down a second time."""
    found = [number for number in (entry["value"], *(entry["ci95"] or ())) if number is not None]
    return [("−" if number < 0 else "") + f"{abs(number):.3f}".removeprefix("0") for number in found]


def test_each_metric_changed_on_record_changes_in_the_report(told: dict[str, Path], tmp_path: Path) -> None:
    """With every value and interval of metrics.json replaced, report and card show the new ones alone."""
    for name in RECORDS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(told["trained"] / name, tmp_path / name)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    new: list[str] = []
    without: set[str] = set()  # shown as they are: a weak model's metric may be undefined in too many replicates
    for part in metrics.values():
        for entry in part.values():
            if not isinstance(entry, dict) or set(entry) != {"value", "ci95"}:
                continue
            if entry["ci95"] is None and entry["value"] is not None:
                without.add(f"{entry['value']:.3f}".replace("-", "−").replace("0.", ".", 1))
            if entry["ci95"]:
                numbers = [(500 + len(new) + step) / 1000 for step in range(3)]
                entry |= {"value": numbers[1], "ci95": [numbers[0], numbers[2]]}
                new += [f"{number:.3f}"[1:] for number in numbers]
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    write_report(tmp_path)
    write_model_card(tmp_path)
    shutil.copy(told["trained"] / "predictions.csv", tmp_path)
    for name, taken in (("report.html", take_apart), ("model_card.md", take_card_apart)):
        text = (tmp_path / name).read_text("utf-8")
        assert len(new) > 100
        assert [number for number in new if number not in text] == []
        own = re.compile(
            r"metrics\.json \w+ \w+" if taken is take_apart else rf"\w+ ({'|'.join(map(re.escape, ROWS))})"
        )
        cells = {each.token for each in taken(text, Evidence(tmp_path)) if own.fullmatch(each.beside)}
        assert cells - without == set(new)
