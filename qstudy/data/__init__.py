"""Speech in: corpora to manifests, manifests to features, features to batches; tokenizer and error rates."""
