"""A build written down: its pretrained model, tasks and options; and its models fetched by their names."""

from mass_serve.model_store.recipes.named import HeadWords, ModelName, NamedTask, named_inputs, task_input
from mass_serve.model_store.recipes.recipe import Recipe, read_recipe

__all__ = ["HeadWords", "ModelName", "NamedTask", "Recipe", "named_inputs", "read_recipe", "task_input"]
