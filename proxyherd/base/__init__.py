"""What any floor may use: it knows nothing of servers and clients.

- `backoff`: how long to wait before the next try
- `earth`: how large the Earth is
- `escapes`: how a stranger's text is shown
- `files`: how a file is opened that others may have put there
- `holders`: which process has a port
- `imports`: imports for a process that is waited for
- `page_files`: the files of web pages
- `words`: which word was meant, and texts that are cut between words
"""
