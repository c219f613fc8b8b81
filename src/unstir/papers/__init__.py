"""The literature verbatim: each file is a paper's algorithm boxes, in the paper's own symbols and line numbers.

Nothing in the library uses them, and they use nothing of the library: tests/test_papers.py asserts that the composed code equals
them. All randomness is handed in, so that both sides can be given the same.

    ddpm            Ho, Jain & Abbeel 2020                algorithms 1 and 2; ddpm_bound: eqs. 5 and 13
    ddim            Song, Meng & Ermon 2021               eqs. 12 and 16, and encoding
    iddpm           Nichol & Dhariwal 2021                eqs. 15, 16 and 19
    edm             Karras, Aittala, Aila & Laine 2022    eq. 5, algorithms 1 and 2
    dpm_solver      Lu et al. 2022a (DPM-Solver)          algorithms 1 and 2
    dpm_solver_pp   Lu et al. 2022b (DPM-Solver++)        algorithms 1 and 2
    dpm_solver_sde  Lu et al. 2022b                       SDE-DPM-Solver++(2M)
    deis            Zhang & Chen 2023                     tAB-DEIS
    ncsn            Song & Ermon 2019, 2020               algorithm 1 of each, and the loss
    score_sde       Song et al. 2021                      algorithms 2-5 (predictor-corrector)
    unipc           Zhao, Bai, Rao, Zhou & Lu 2023        UniP-p and UniC-p, for data prediction
    repaint         Lugmayr et al. 2022                   algorithm 1
    sdedit          Meng et al. 2022                      algorithm 1, and the released code's VP form
    guided_diffusion  Dhariwal & Nichol 2021            algorithms 1 and 2
    cfg             Ho & Salimans 2022                    algorithm 2
    clip            Radford et al. 2021                   figure 3
    glide           Nichol et al. 2022                    CLIP guidance
    imagen          Saharia et al. 2022                   static and dynamic thresholding
    progressive     Salimans & Ho 2022; Meng et al. 2023  algorithm 2; section 3.1
    consistency     Song et al. 2023                      algorithms 1, 2, 3 and 4
    unclip          Ramesh et al. 2022                    prior, decoder and text diffs (sections 2 and 3)
"""
