"""SCoRe: training language models to self-correct via reinforcement learning (arXiv 2409.12917), in JAX."""
