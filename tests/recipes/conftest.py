"""What runs of methods share with the tests of training."""

from tests.training.conftest import base as base
from tests.training.conftest import model_folder as model_folder
