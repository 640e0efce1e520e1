"""What revstore's operations cost, each beside a bound measured in the same run."""
