"""The project's benchmark: what the budgets name, measured in one run, as ratios against something in the same run."""
