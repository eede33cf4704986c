"""What any daemon needs: HTTP, files, threads, time, log, metrics, plug-ins. Nothing here knows the platform."""
