"""Other methods on the same data, by the same training loop, under the same evaluator."""
