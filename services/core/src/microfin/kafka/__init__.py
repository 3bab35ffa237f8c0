"""Kafka: connecting, and producing commands."""
