"""The command `qstudy`: finds a subcommand's function; its signature and docstring make the options."""

import importlib
import inspect
import os
import re
import select
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from io import TextIOWrapper
from itertools import takewhile
from keyword import iskeyword
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentError, ArgumentParser, _loaders_dumpers, set_parsing_settings

from qstudy import __version__, runtime
from qstudy.arguments import CONFIG, read_configurations
from qstudy.data.corpora import CORPORA
from qstudy.errors import INTERRUPTED, UNREAD, USER_ERROR, UserError, meant
from qstudy.fields import type_hints
from qstudy.secrets import hide, masked_arguments, print_crash, storage_to_environment
from qstudy.yaml_file import Loader


class Command(NamedTuple):
    """A subcommand; its function's module is imported when it is called, what the function needs when it runs."""

    function: str
    """`module:function`."""
    summary: str
    """One line for `qstudy --help`."""
    positional: tuple[str, ...] = ()
    """Parameters given without a name."""
    has_storage: bool = False
    """Whether it has the option `--storage`."""
    goes_on: bool = False
    """Whether the same command, after Ctrl-C, goes on where it stopped."""


COMMANDS = {
    **{f"data {name}": Command(f"qstudy.data.corpora.{name}:{name}", summary) for name, summary in CORPORA.items()},
    "data noisy": Command("qstudy.data.corpora.noisy:noisy", "noisy copies of any manifest", ("manifests",)),
    "data text": Command("qstudy.data.corpora.sentences:text", "text for language models"),
    "train": Command(
        "qstudy.commands.train:train", "train one model under one policy; goes on where it stopped", goes_on=True
    ),
    "train-lm": Command(
        "qstudy.commands.train_lm:train_lm", "train a language model of a recognizer's labels", goes_on=True
    ),
    "perplexity": Command(
        "qstudy.commands.perplexity:perplexity", "how well a language model predicts a text", ("model",)
    ),
    "presets": Command("qstudy.commands.presets:presets", "models to train by their names, and what they cost"),
    "evaluate": Command(
        "qstudy.commands.evaluate:evaluate", "word error rate of a model on a manifest", ("model",), goes_on=True
    ),
    "tune-fusion": Command(
        "qstudy.commands.tune_fusion:tune_fusion",
        "how much language models count, by a dev set",
        ("model",),
        goes_on=True,
    ),
    "decode": Command(
        "qstudy.commands.decode:decode",
        "a study of searches: recognizers, language models, beams",
        ("study",),
        goes_on=True,
    ),
    "export": Command("qstudy.commands.export:export", "pack a checkpoint for the device", ("checkpoint",)),
    "transcribe": Command("qstudy.commands.transcribe:transcribe", "text from wav or flac files", ("model", "audio")),
    "branches": Command(
        "qstudy.commands.branches:branches", "where an amortized encoder spends its computing", ("model", "audio")
    ),
    "simulate": Command(
        "qstudy.commands.simulate:simulate", "latency and traffic on a described accelerator", ("model",)
    ),
    "beams": Command("qstudy.commands.beams:beams", "latency of the whole search over beam widths", ("model",)),
    "sensitivity": Command(
        "qstudy.commands.sensitivity:sensitivity",
        "what each layer's widths alone do, by rounding",
        ("config",),
        goes_on=True,
    ),
    "reprice": Command("qstudy.commands.reprice:reprice", "simulate finished runs anew, without training", ("folder",)),
    "rescore": Command(
        "qstudy.commands.rescore:rescore", "score finished runs on more test sets", ("folder",), goes_on=True
    ),
    "sweep": Command("qstudy.commands.sweep:sweep", "run or continue a study", ("study",), True, goes_on=True),
    "worker": Command(
        "qstudy.commands.worker:worker", "one more worker for a study, on any machine", (), True, goes_on=True
    ),
    "status": Command("qstudy.commands.status:status", "where a study stands, and the best so far", ("study",), True),
    "cache": Command("qstudy.commands.cache:cache", "list, verify and prune what runs keep: features and baselines"),
    "index": Command("qstudy.commands.index:index", "one page over all reports, and what papers claim"),
    "report": Command("qstudy.commands.report:report", "rebuild tables and plots from a study's records", ("study",)),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; exit code 2 and one sentence on bad input, 130 on Ctrl-C."""
    runtime.tune()  # before any command imports torch
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.excepthook = print_crash
    _print_any_letter()
    try:
        try:
            _run(arguments)
        except BrokenPipeError:
            raise
        except BaseException:  # what went wrong is worth more than what nobody reads
            with suppress(OSError):
                _flush()
            _is_read()
            raise
        _flush()
    except UserError as error:
        _fail(str(error))
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        _fail(f"A file name is not UTF-8 text ({error.object[max(error.start - 80, 0) : error.end]}...); rename it.")
    except BrokenPipeError as error:
        if _is_read():
            _fail(f"The system: {error.strerror}.")
        sys.exit(UNREAD)
    except OSError as error:
        _fail(f"{error.filename or 'The system'}: {error.strerror or error}.")
    except KeyboardInterrupt:
        command = COMMANDS.get(_named(arguments))
        more = "; the same command goes on where it stopped" if command and command.goes_on else ""
        _print_error(f"\nInterrupted{more}.")
        sys.exit(INTERRUPTED)


def _print_any_letter() -> None:
    """Let standard output, as standard error does, escape letters of a name or a text that its encoding lacks, and
    write each line when it ends: the log of a sweep is read while it runs."""
    if getattr(sys.stdout, "errors", None) == "strict":  # it may be closed, or no stream of Python's
        cast(TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace", line_buffering=True)


def _fail(message: str) -> NoReturn:
    visible = (letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in hide(message))
    _print_error("\n".join(_shortened(line) for line in f"qstudy: {''.join(visible)}".split("\n")))
    sys.exit(USER_ERROR)


def _explained(message: str, options: Collection[str]) -> str:
    """What jsonargparse says of arguments, in the user's words.

    Args:
        message: its own.
        options: all of the command's, for what was meant.
    """
    said = " ".join(message.split())
    _, unrecognized, words = said.partition("nrecognized arguments: ")
    if unrecognized:  # without what follows the option's name: perhaps a misspelt secret
        name = words.split()[0].partition("=")[0]
        if not name.startswith("-"):
            return f"{name!r} is one argument too many; --help tells what there is."
        return f"{name} is no option of this command{meant(name, options)}; --help lists them."
    _, required, words = said.partition("the following arguments are required: ")
    if required:
        names = [f"--{name}" if f"--{name}" in options else name for name in words.split(", ")]
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} required; --help tells of them."
    if wrong := re.match(r'Parser key "([^"]+)": .*?(?:Given|Got) value: (.*)', said):
        names = re.findall(r"Literal\[(.*?)\]", said)[:1]
        kinds = [f"one of {each}".replace("'", "") for each in names]
        kinds += [word for kind, word in _KINDS.items() if f"<class '{kind}'>" in said]
        kinds += [f"a list: [{wrong[2]}]" for kind in ("list", "tuple") if f"<class '{kind}'>" in said]
        expected = f"must be {' or '.join(kinds)}" if kinds else "cannot be taken"
        return f"--{wrong[1]}: {wrong[2]!r} {expected}."
    return said[:400]


_KINDS = {"int": "a whole number", "float": "a number", "pathlib.Path": "a path"}


def _shortened(line: str, most: int = 1000) -> str:
    return line if len(line) <= most else f"{line[:most]}..."


def _print_error(message: str) -> None:
    """Tell the user, once: of several processes that train one model together, the first speaks."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(message, file=sys.stderr)


def _named(arguments: list[str]) -> str:
    """The command that arguments begin with; empty if none."""
    both = (" ".join(arguments[:length]) for length in (2, 1))
    return next((name for name in both if name in COMMANDS), "")


def _command_name(arguments: list[str]) -> str:
    if name := _named(arguments):
        return name
    if arguments[:1] == ["--version"]:
        print(f"qstudy {__version__}")
        sys.exit(0)
    asked = not arguments or {"--help", "-h"} & set(arguments[:2])
    group = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    shown = {name: command for name, command in COMMANDS.items() if name.startswith(f"{group} ")} or COMMANDS
    lines = [f"  {name:<18}{command.summary}" for name, command in shown.items()]
    usage = "\n".join(["usage: qstudy COMMAND [OPTIONS]   (qstudy COMMAND --help)", "", *lines])
    if asked or group in {"data"}:
        print(usage)
        sys.exit(0 if asked else USER_ERROR)
    said = (
        f"{arguments[0]!r} is not a command{meant(' '.join(arguments[:2]), COMMANDS) or meant(arguments[0], COMMANDS)}"
    )
    _fail(f"{said}; commands are {', '.join(COMMANDS)}.")


def _flush() -> None:
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _is_read() -> bool:
    """Whether anyone still reads standard output; where `| head` has had enough, what else is printed goes nowhere."""
    try:
        place = sys.stdout.fileno()
    except (AttributeError, ValueError):  # there is none, or it is closed, or no file: a notebook's
        return True
    poll = select.poll()
    poll.register(place, 0)  # of a pipe or a socket without a reader it says so unasked
    if not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), place)  # Python flushes once more at its end
    return False


def _run(arguments: list[str]) -> None:
    name = _command_name(arguments)
    sys.argv[:] = masked_arguments(sys.argv)  # Weights & Biases writes them down
    _call(name, COMMANDS[name], arguments[len(name.split()) :])


def _call(name: str, command: Command, arguments: Sequence[str]) -> None:
    module, _, attribute = command.function.partition(":")
    _once(arguments)
    for text in (*arguments, str(Path.cwd())):
        if re.search("[\ud800-\udfff]", text):
            raise UserError(f"{text} is not UTF-8 text; rename that file or folder.")
    if command.has_storage:
        arguments = storage_to_environment(arguments)
    try:
        function: Callable[..., None] = getattr(importlib.import_module(module), attribute)
        if {"--help", "-h"} & set(arguments):
            all_options(name, function, command.positional).parse_args(["--help"])
        configured, rest = read_configurations(get_type_hints(function), arguments)
        parser = _signature_options(name, function, command.positional)
        try:
            values = vars(parser.instantiate(parser.parse_args(rest)))
        except ArgumentError as error:
            options = all_options(name, function, command.positional)._option_string_actions
            raise UserError(_explained(str(error), options)) from error
        function(**configured, **{f"{key}_" if iskeyword(key) else key: value for key, value in values.items()})
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("qstudy", "analysis"):
            raise
        raise UserError(
            f"`qstudy {name}` needs the package {error.name}; install it with pip install 'qstudy[all]'."
        ) from error


def _once(arguments: Sequence[str]) -> None:
    """Raise UserError if an option is given twice; configuration files may follow each other."""
    names = [argument.partition("=")[0] for argument in takewhile(lambda each: each != "--", arguments)]
    options = Counter(name for name in names if name.startswith("--") and name != CONFIG and name[-1] != "+")
    if twice := [name for name, count in options.items() if count > 1]:
        raise UserError(f"{twice[0]} is given twice; leave one of them out.")


def all_options(name: str, function: Callable[..., None], positional: tuple[str, ...]) -> ArgumentParser:
    """Those of the signature, and for a dataclass `--config` and one option per field."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the help of a configuration's fields
    parser, sections, hints = _signature_options(name, function, positional), set[str](), dict[str, Any]()
    for parameter, kind in get_type_hints(function).items():
        if is_dataclass(kind):
            parser.add_argument(CONFIG, help=_described(function).get(parameter))
            parser.add_class_arguments(kind, as_group=False)
            inner: dict[str, Any] = {f: hint for f, hint in type_hints(cast(Any, kind)).items() if is_dataclass(hint)}
            hints |= {f"{field}.{name}": hint for field in inner for name, hint in type_hints(inner[field]).items()}
            sections |= set(inner)
    for action in parser._actions:  # help names types, without their limits
        if action.dest in sections:
            action.metavar, action.help = "{FIELD: VALUE, ...}", "All fields of this section, as YAML."
        if hint := hints.get(action.dest, vars(action).get("_typehint")):
            vars(action)["_typehint"] = get_type_hints(type("", (), {"__annotations__": {"field": hint}}))["field"]
    return parser


def _signature_options(name: str, function: Callable[..., None], positional: tuple[str, ...]) -> ArgumentParser:
    """Options from the signature, without its dataclasses; a bool is a switch."""
    _loaders_dumpers.yaml_default_loader = Loader  # type: ignore[assignment]  # bounded, and 1:30 is not 90
    documented, described = docstring_parser.parse(inspect.getdoc(function) or ""), _described(function)
    parser = ArgumentParser(
        prog=f"qstudy {name}", description=documented.short_description, exit_on_error=False, allow_abbrev=False
    )
    hints = get_type_hints(function)
    skipped: set[str | int] = set(positional)
    for parameter in positional:
        many: dict[str, Any] = {"nargs": "+"} if get_origin(hints[parameter]) is list else {}
        kind = hints[parameter].__args__[0] if many else hints[parameter]
        parser.add_argument(parameter, type=kind, help=described.get(parameter), **many)
    for parameter, kind in hints.items():
        if is_dataclass(kind):
            skipped.add(parameter)
        elif kind is bool:  # a switch: `--json`, not `--json true`
            parser.add_argument(f"--{parameter}", action="store_true", help=described.get(parameter))
            skipped.add(parameter)
        elif parameter.endswith("_"):  # Python's `pass_` is `--pass`
            default = inspect.signature(function).parameters[parameter].default
            parser.add_argument(f"--{parameter[:-1]}", type=kind, default=default, help=described.get(parameter))
            skipped.add(parameter)
    parser.add_function_arguments(function, as_group=False, skip=skipped)
    return parser


def _described(function: Callable[..., None]) -> dict[str, str | None]:
    """Parameter -> its help."""
    return {p.arg_name: p.description for p in docstring_parser.parse(inspect.getdoc(function) or "").params}
