"""The endpoints: what each path does."""
