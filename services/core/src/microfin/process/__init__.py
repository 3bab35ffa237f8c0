"""What every process of ours needs: settings, logs, clock, deadlines, tuning."""
