"""``python -m pretrain_mlip``."""

from pretrain_mlip.cli.main import main

if __name__ == "__main__":
    main()
