"""Any ``nn.Module``: load published nets and weights, record the outputs of layers."""
