"""The literature verbatim: each file is a paper's algorithm boxes, in the paper's own symbols and line numbers.

Nothing in the library uses them, and they use nothing of the library: tests/test_papers.py asserts that the composed code equals
them. All randomness is handed in, so that both sides can be given the same.

    ddpm            Ho, Jain & Abbeel 2020                algorithms 1 and 2
    ddim            Song, Meng & Ermon 2021               eqs. 12 and 16
    edm             Karras, Aittala, Aila & Laine 2022    eq. 5, algorithms 1 and 2
    dpm_solver_pp   Lu et al. 2022                        algorithm 2
"""
