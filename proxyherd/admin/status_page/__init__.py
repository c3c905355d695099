"""What the status page shows: this server's own state, and that of the whole herd, for all who look.

    state     what a server says of itself at /state, and how it is read       also by `proxyherd status`
    own_state makes it of this server
    rates     how fast totals grow, percentiles of histograms                  pure; likewise
    density   how many clients are where, counted a slice at a time
    others    asks the other servers, while somebody looks
    troubles  what is wrong, and since when                                    pure
    hour      samples of this server in the last hour                          pure
    herd      makes one update a second, and sends it to all viewers
    page      what a browser loads

The admin port serves it. While nobody looks, it costs a sample every ten seconds.
"""
