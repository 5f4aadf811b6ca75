"""The rules of the house as code; scripts/lint runs them, tests/lint tests them, docs/architecture.md explains them."""
