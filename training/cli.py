"""The commands of `python -m training`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.commands import train
from training.commands.data import add_data_verbs
from training.commands.evaluate import add_evaluate_verb
from training.commands.restore import add_restore_verb
from training.commands.study import add_study_verb
from training.commands.text import add_text_verbs
from training.common.errors import DivergedError, Interrupted, LostProcessError, SaveError

TRAIN_HELP = """\
Run one recipe on this machine's GPU (or its CPU). On several devices:

    accelerate launch --num_processes 4 -m training train stage2 --data manifest.jsonl --base sdxl/ --init runs/stage1 --out
    runs/stage2

The batch is that of the recipe, shared by the processes: no number of them changes the result's recipe, learning rate or draws.
"""


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    root = argparse.ArgumentParser(prog="python -m training", description="Train, degrade, export and evaluate FaithDiff models.")
    verbs = root.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    add_data_verbs(verbs)
    _train_verbs(verbs)
    _file_verbs(verbs)
    add_evaluate_verb(verbs)
    add_restore_verb(verbs)
    add_text_verbs(verbs)
    _check_verbs(verbs)
    add_study_verb(verbs)
    return root


def _train_verbs(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("recipes", help="list the recipes")
    verb.set_defaults(run=train.recipes)

    verb = verbs.add_parser(
        "train", help="run one recipe", description=TRAIN_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.add_argument("recipe", help="a name that `recipes` lists, or a .json file of settings (a run's config.json is one)")
    _source_arguments(verb)
    verb.add_argument("--out", type=Path, required=True, help="run folder")
    verb.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="replace settings of the recipe")
    verb.add_argument("--resume", action="store_true", help="go on from the run's newest checkpoint; start where there is none")
    verb.add_argument(
        "--dry-run", action="store_true", help="print the resolved run, what trains and the memory it takes, and stop"
    )
    verb.set_defaults(run=train.train)

    verb = verbs.add_parser("ablate", help="train the rows of the paper's Tables 5 and 6 and compare them")
    _source_arguments(verb)
    verb.add_argument("--out", type=Path, required=True, help="folder for the runs, report.json and report.md")
    verb.add_argument("--rows", nargs="+", metavar="ROW", help="default: all")
    verb.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    verb.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="replace settings of every run")
    verb.set_defaults(run=train.ablate)

    verb = verbs.add_parser("nano", help="make the nano model: all stages, each from its last checkpoint")
    verb.add_argument("--out", type=Path, required=True, help="folder for the two weight files")
    verb.add_argument("--work", type=Path, default=Path("runs/nano"), help="folder for manifest, checkpoints and logs")
    verb.add_argument("--stages", nargs="+", metavar="STAGE", help="prepare, vae, prior, align, joint, export (default: all)")
    verb.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="replace settings of these stages' recipes"
    )
    verb.set_defaults(run=train.nano)


def _source_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--data", type=Path, required=True, help="manifest from prepare")
    verb.add_argument(
        "--base", type=Path, help="SDXL checkpoint, or a diffusers folder of one: UNet, VAE and text encoders to start from"
    )
    verb.add_argument("--init", type=Path, help="run folder to start from, or a FaithDiff file (FaithDiff.bin, .safetensors)")
    verb.add_argument("--vae", type=Path, help="VAE to use in place of the base's")
    verb.add_argument("--text", type=Path, help="diffusers folder with the two text encoders, where --base has none")


def _file_verbs(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("export", help="write a run's weights (their average, where it has one) for the nodes")
    verb.add_argument("run_dir", type=Path, metavar="RUN")
    verb.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    verb.add_argument("--layout", choices=("full", "adapter"), default="full")
    verb.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), default="fp16")
    verb.add_argument("--data", type=Path, help="manifest; needed for a VAE, whose latents are normalised on it")
    verb.add_argument("--license", default="", help="goes into the file's header")
    verb.add_argument("--base-model", default="", help="goes into the file's header")
    verb.set_defaults(run=train.export)

    verb = verbs.add_parser("convert", help="FaithDiff.bin to .safetensors and back, between layouts and types")
    verb.add_argument("source", type=Path, metavar="FILE", help="FaithDiff.bin, or a FaithDiff .safetensors")
    verb.add_argument("--out", type=Path, required=True, help="the .safetensors or .bin to write")
    verb.add_argument("--layout", choices=("full", "adapter", "released"), help="default: full, or released for a .bin")
    verb.add_argument("--dtype", choices=("keep", "fp16", "bf16", "fp32"), default="keep")
    verb.add_argument(
        "--sha256", help="the input's hash as its page gives it: a broken download is then seen before anything else"
    )
    verb.set_defaults(run=train.convert)


def _check_verbs(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("reconstruct", help="pictures through an exported VAE and back, to see what it alone costs")
    verb.add_argument("source", type=Path, metavar="IN", help="picture or folder")
    verb.add_argument("out", type=Path, metavar="OUT", help="folder for the results")
    verb.add_argument("--vae", type=Path, required=True, help="exported VAE")
    verb.set_defaults(run=train.reconstruct)

    verb = verbs.add_parser(
        "reference", help="write inputs and the trainer's own predictions of an export, to compare others with"
    )
    verb.add_argument("model", type=Path, metavar="FILE", help="full export")
    verb.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    verb.add_argument("--height", type=int, default=256, metavar="PX")
    verb.add_argument("--width", type=int, default=224, metavar="PX")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(run=train.reference)


def main(argv: list[str] | None = None) -> int:
    """Run one command. 0 = done, 1 = some pictures failed, 2 = wrong input, 3 = the loss diverged, 4 = the end of a run could not
    be saved, 5 = another process of the run was lost, 130 = Ctrl-C, 143 = SIGTERM."""
    arguments = parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except ValueError as error:
        return _failed(str(error), 2)
    except SaveError as error:
        return _failed(str(error), 4)
    except OSError as error:
        return _failed(f"expected to read and write files, got {error}, check the path and the disk", 2)
    except MemoryError:
        return _failed("expected memory for what was read, got too little, end other programs or take smaller files", 2)
    except DivergedError as error:
        return _failed(str(error), 3)
    except LostProcessError as error:
        return _failed(str(error), 5)
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what was trained since the last checkpoint is lost, go on with --resume", file=sys.stderr)
        return 130


def _failed(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
