"""What an offline store over Spark must do, case by case, against ours and against Feast's own."""
