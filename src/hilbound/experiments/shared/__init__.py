"""What several experiments share: trainings, measures and yardsticks."""
