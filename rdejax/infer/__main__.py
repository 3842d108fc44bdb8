"""The command line of inference: `infer.py`, `rdejax-infer` and `python -m rdejax.infer`.

Heavy imports wait until they are needed, so that `--help` and wrong arguments answer at once.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdejax.cli import cli_errors
from rdejax.compilation_cache import keep_compiled
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
        keep_compiled(not arguments.result.no_compilation_cache)
        # Inference knows nothing of the report, which reads what inference writes.
        from rdejax.infer.many import run_videos, videos_in
        from rdejax.infer.model import load
        from rdejax.infer.run import run_dataset, run_video

        known: dict[Path, dict[str, Any]]
        if arguments.data.dataset is not None:
            run_dataset(arguments)
            data = arguments.data
            about = {"dataset": data.dataset, "root": data.root, "split": data.split}
            known = {arguments.output: about}
        elif (videos := videos_in(arguments.videos)) is not None:
            done = run_videos(arguments, videos, run_video, lambda: load(arguments.model))
            known = {output: {"video": source} for output, source in done.items()}
        else:
            known = {arguments.output: {"video": run_video(arguments)}}
        if arguments.result.report:
            from rdejax.report import write_report

            for output, about in known.items():
                path = write_report(output, **about)
                if not arguments.result.quiet:
                    print(f"wrote {path}")


if __name__ == "__main__":
    main()
