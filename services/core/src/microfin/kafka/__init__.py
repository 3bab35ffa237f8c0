"""Kafka: connecting to it, and producing commands."""
