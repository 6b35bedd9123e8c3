"""What a run comes to, in a few plain sentences."""

from __future__ import annotations

from tumortrace.reports.records import Records, decimals


def verdict(records: Records) -> list[str]:
    """How well, on what, at which threshold, and whether leakage is ruled out: a sentence each.

    Args:
        records: Those of a run or of an evaluation.
    """
    judged = records.judged
    if not judged:
        return ["No metrics are on record for this run."]
    sentences = [_ranking(records)]
    if judged.get("sensitivity") and judged.get("specificity"):
        sentences.append(_calls(records))
    if records.split == "validation" and learner(records):
        sentences.append("There is no test split, but these images have chosen nothing.")
    elif records.split == "validation":
        sentences.append("There is no test split: these images also chose the epoch, so expect less on new ones.")
    if leakage := records.run.get("leakage"):
        sentences.append(f"Leakage between the splits is {leakage.rstrip('.')}.")
    elif records.run.get("verb") == "evaluate":
        seen = "; what the model has seen of them is not on record" if records.foreign else ""
        sentences.append(f"Nothing was fitted on these images here{seen}.")
    else:
        sentences.append("Whether leakage between the splits is ruled out is not on record.")
    return sentences


def _ranking(records: Records) -> str:
    """The AUROC, and what it means for one image of each class (Hanley & McNeil 1982)."""
    judged = records.judged
    groups, share = judged.get("n_groups"), judged.get("prevalence")
    of = f" of {groups:,} group{'s' * (groups > 1)} (slides or patients)" if groups else ""
    positives = "" if share is None else f", {100 * share:.1f} % of them {records.classes[1]}"
    auroc = (judged.get("auroc") or {}).get("value")
    meaning = ""
    if auroc is not None:
        meaning = (
            f": of one {records.classes[1]} and one {records.classes[0]} image, the {records.classes[1]} one gets the"
            f" higher probability in {100 * auroc:.0f} of 100 cases"
        )
    on = f"on {judged.get('n', 0):,} {records.split} images{of}{positives}"
    return f"AUROC {records.metric('auroc')} {on}{meaning}."


def _calls(records: Records) -> str:
    """Sensitivity and specificity at the threshold, and how many images of 100 that is."""
    judged, policy = records.judged, records.model.get("threshold_policy")
    sentence = (
        f"At the threshold {decimals(judged.get('threshold'))}{f' (chosen by {policy})' if policy else ''}"
        f" sensitivity is {records.metric('sensitivity')} and specificity {records.metric('specificity')}"
    )
    found, spared = judged["sensitivity"].get("value"), judged["specificity"].get("value")
    if found is None or spared is None:
        return f"{sentence}."
    return (
        f"{sentence}: of 100 {records.classes[1]} images {100 * found:.0f} are found, and of 100 {records.classes[0]}"
        f" images {100 * (1 - spared):.0f} are called {records.classes[1]} all the same."
    )


def learner(records: Records) -> str | None:
    """A sentence on a classical learner, which has no parameters as networks have; None for a network."""
    architecture = records.model.get("architecture") or {}
    if architecture.get("name") != "texture":
        return None
    arguments = architecture.get("arguments") or {}
    on = f"on {len(arguments.get('descriptors') or ())} hand-made descriptors"
    trees = arguments.get("trees")
    if not trees:
        return f"Logistic regression {on}."
    one = "1 decision tree" if trees["trees"] == 1 else f"{trees['trees']:,} decision trees"
    return f"{one} {on}, {trees['nodes']:,} nodes, up to {trees['depth']} splits deep."
