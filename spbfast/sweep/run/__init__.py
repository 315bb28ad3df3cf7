"""Running a sweep: the driver, its workers, their failures, progress and limits."""
