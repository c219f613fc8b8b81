"""``python -m unstir``, for launchers that start a module: ``accelerate launch -m unstir train ...``"""

from unstir.cli import main

main()
