"""What holds for all tests."""

import torch

# Sums over other numbers of threads differ in the last bit; the processes that tests start run on one.
torch.set_num_threads(1)
