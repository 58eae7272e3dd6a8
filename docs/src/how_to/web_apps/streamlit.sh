python -m streamlit run streamlit_app.py \
    --server.port 9001 --server.baseUrlPath shop --server.headless true
