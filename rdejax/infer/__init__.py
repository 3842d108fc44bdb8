"""The whole inference program: files in, masks and overlay out.

Reading order: `cli` (arguments), `run` (what is done with them), `video` (one video through a
stream into its folder), `dataset` (a data set likewise), `results` (whole or unfinished results),
`timing`, `progress`; `__main__` is the entry point.
"""
