"""Applications of ``mmseg_alignzeg``: command line, web page, inferencer, reports, benchmarks, exchange of models."""
