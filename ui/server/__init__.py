"""What stands between Gradio's server and the network: uploads, rights, malformed requests, the page's HTML."""
