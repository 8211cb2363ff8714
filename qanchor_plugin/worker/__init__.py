"""The process that owns a device and answers anchor queries over Flight; knows no Feast, no Spark."""
