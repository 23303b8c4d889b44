complete --keep-order --exclusive --command p2pfs --arguments "(COMPLETE=fish p2pfs -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
