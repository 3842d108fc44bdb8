"""The command line of inference: `infer.py`, `rdejax-infer` and `python -m rdejax.infer`.

Heavy imports wait until they are needed, so that `--help` and wrong arguments answer at once.
"""

import sys
from collections.abc import Sequence
from typing import Any

from rdejax.cli import cli_errors
from rdejax.infer.cli import parse
from rdejax.signals import ending_on_signals


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits non-zero with one sentence on a problem.

    Exit codes: 2 input that can be mended, 1 a full disk or too little memory, 130 Ctrl-C,
    143 SIGTERM.

    Args:
      argv: arguments; the process's own by default.
    """
    with cli_errors(memory="try a smaller --size or --chunk"), ending_on_signals():
        arguments = parse(sys.argv[1:] if argv is None else argv)
        # Inference knows nothing of the report, which reads what inference writes.
        from rdejax.infer.run import run_dataset, run_video

        known: dict[str, Any]
        if arguments.data.dataset is None:
            known = {"video": run_video(arguments)}
        else:
            run_dataset(arguments)
            known = vars(arguments.data)
        if arguments.result.report:
            from rdejax.report import write_report

            path = write_report(arguments.output, **known)
            if not arguments.result.quiet:
                print(f"wrote {path}")


if __name__ == "__main__":
    main()
