"""What holds for all tests."""

import torch
from hypothesis import settings

# Sums over other numbers of threads differ in the last bit; the processes that tests start run on one.
torch.set_num_threads(1)

# The same examples in every run, without a folder of earlier ones: what is found once is found again.
settings.register_profile("suite", max_examples=40, derandomize=True, database=None, deadline=None)
settings.load_profile("suite")
