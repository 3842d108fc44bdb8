"""The recipes: each module defines `config`, a `rdejax.train.config.TrainConfig`.

`rdejax train NAME` takes one by its module's name; a recipe of one's own is a file like these.
"""
