"""The project's own benchmark: what DESIGN's budgets name, measured in one run, as ratios against something in it."""
