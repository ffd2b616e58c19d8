"""The only place that imports Ray: driver, searcher, trial host, resources, monitor."""
