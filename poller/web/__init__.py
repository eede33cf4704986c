"""The pages for people, and the JSON behind them, on a listener of their own.

Layout
    `server` listens and puts the parts together. Each other module serves one group of paths, and has a function
    `routes`. `static` holds the pages: ES modules and one style sheet, served as they are, without a build step.
"""
