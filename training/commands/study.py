"""`ablate`, `study`, `study-fidelity`: the paper's ablations at small scale, and the studies that are written as pages."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.commands.train import add_sources, sources_of


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the commands and their options."""
    verb = verbs.add_parser("ablate", help="train the rows of the paper's Tables 5 and 6 and compare them")
    add_sources(verb)
    verb.add_argument("--out", type=Path, required=True, help="folder for the runs, report.json and report.md")
    verb.add_argument("--rows", nargs="+", metavar="ROW", help="default: all")
    verb.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    verb.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="replace settings of every run")
    verb.set_defaults(run=ablate)

    verb = verbs.add_parser("study", help="the small-scale study: ablation rows, levels, floor and ceiling, written as a page")
    verb.add_argument("--data", type=Path, required=True, help="manifest to train on (runs/nano/manifest-levels.jsonl)")
    verb.add_argument("--init", type=Path, required=True, help="run of the prior that all rows start from (runs/nano/prior)")
    verb.add_argument("--model", type=Path, required=True, help="the shipped model: a full export")
    verb.add_argument("--vae", type=Path, required=True, help="its VAE, which the rows use too")
    verb.add_argument("--photos", type=Path, help="photos that no training saw (default: scikit-image's samples)")
    verb.add_argument("--out", type=Path, required=True, help="folder for runs, pictures and study.json")
    verb.add_argument("--page", type=Path, required=True, help="the page to write (.md); pictures/ beside it")
    verb.add_argument("--rows", nargs="+", metavar="ROW", help="default: all")
    verb.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    verb.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="replace settings of every run")
    verb.set_defaults(run=study)

    verb = verbs.add_parser("study-fidelity", help="what a fidelity decoder changes, in figures and pictures, written as a page")
    verb.add_argument("--model", type=Path, required=True, help="full export of the model")
    verb.add_argument("--vae", type=Path, required=True, help="its VAE")
    verb.add_argument("--decoder", type=Path, required=True, help="its fidelity decoder")
    verb.add_argument("--photos", type=Path, help="photos that no training saw (default: scikit-image's samples)")
    verb.add_argument("--weights", type=Path, metavar="FOLDER", help="weights of metrics, as for `evaluate`")
    verb.add_argument("--pyiqa", type=Path, metavar="PYTHON", help="Python of an environment with pyiqa, for NIQE")
    verb.add_argument("--text-pictures", type=int, default=24, metavar="N", help="pictures of words, 0 = none (default: 24)")
    verb.add_argument("--out", type=Path, required=True, help="folder for pictures, scores and fidelity.json")
    verb.add_argument("--page", type=Path, required=True, help="the page to write (.md); pictures/ beside it")
    verb.set_defaults(run=study_fidelity)


def ablate(arguments: argparse.Namespace) -> None:
    """`ablate`: the paper's Tables 5 and 6 at small scale."""
    from training.config.ablations import rows
    from training.study.ablate import run_ablation

    chosen = arguments.rows or list(rows())
    print(run_ablation(sources_of(arguments), arguments.out, rows=chosen, seeds=arguments.seeds, settings=arguments.set))


def study(arguments: argparse.Namespace) -> None:
    """`study`: make what is missing, and the page."""
    from training.config.ablations import rows
    from training.config.schema import Sources
    from training.study.study import StudyInputs, StudyPlan, run_study

    inputs = StudyInputs(
        sources=Sources(data=arguments.data, vae=arguments.vae, init=arguments.init),
        model=arguments.model,
        vae=arguments.vae,
        photos=arguments.photos,
    )
    page = run_study(
        inputs, arguments.out, arguments.page, rows=arguments.rows or list(rows()), seeds=arguments.seeds, settings=arguments.set,
        plan=StudyPlan(),
    )  # fmt: skip
    print(page)


def study_fidelity(arguments: argparse.Namespace) -> None:
    """`study-fidelity`: make what is missing, and the page."""
    from training.decoder_study.study import DecoderInputs, DecoderPlan, run_decoder_study

    names = ("model", "vae", "decoder", "photos", "weights", "pyiqa")
    inputs = DecoderInputs(**{name: getattr(arguments, name) for name in names})
    if arguments.text_pictures < 0:
        raise ValueError(f"expected --text-pictures to be 0 or more, got {arguments.text_pictures}; leave it out for 24")
    plan = DecoderPlan(text_pictures=arguments.text_pictures)
    print(run_decoder_study(inputs, arguments.out, arguments.page, plan))
