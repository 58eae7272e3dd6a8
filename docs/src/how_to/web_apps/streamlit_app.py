import streamlit as st

number = st.number_input("Number", value=1)
if st.button("Double"):
    st.write(f"The double of {number} is {2 * number}.")
